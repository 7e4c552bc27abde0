/** Server-sent events, parsed from pieces of text as they arrive (the WHATWG's rules; no `retry`). */

export interface StreamEvent {
  type: string;
  data: string;
  /** The last id that was said, also by an earlier event. */
  id: string;
}

const ROOM = 1 << 20; // characters of one event: more is a fault, not an event

export class EventParser {
  private rest = "";
  private data: string[] = [];
  private type = "";
  private room = ROOM;

  private id: string;

  /** `id` is the last one that an earlier connection said. */
  constructor(id = "") {
    this.id = id;
  }

  /** The events that are whole with this piece. Throws RangeError if one grows without end. */
  feed(piece: string): StreamEvent[] {
    const events: StreamEvent[] = [];
    const text = this.rest + piece;
    // a carriage return at the end may be half of a line's end
    const upTo = text.endsWith("\r") ? text.length - 1 : text.length;
    const lines = text.slice(0, upTo).split(/\r\n|\n|\r/);
    this.rest = (lines.pop() ?? "") + text.slice(upTo);
    if (this.rest.length > ROOM) throw new RangeError("A line of the stream has no end.");
    for (const line of lines) {
      const event = this.line(line);
      if (event !== null) events.push(event);
    }
    return events;
  }

  private line(line: string): StreamEvent | null {
    if (line === "") return this.dispatched();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") {
      this.room -= value.length;
      if (this.room < 0) throw new RangeError("An event of the stream has no end.");
      this.data.push(value);
    } else if (field === "event") {
      this.type = value;
    } else if (field === "id" && !value.includes("\0")) {
      this.id = value;
    }
    return null;
  }

  private dispatched(): StreamEvent | null {
    const { data, type } = this;
    this.data = [];
    this.type = "";
    this.room = ROOM;
    return data.length === 0 ? null : { type: type || "message", data: data.join("\n"), id: this.id };
  }
}
