/** The stream of what happens to runs, connected again when it ends, and its state for the reader. */

import type { Api } from "./api.ts";
import { parse } from "./exact-json.ts";
import { EventParser } from "./event-stream.ts";
import { asProblem, isAbort, problemOf } from "./problem.ts";
import type { RunSummary } from "./shapes.ts";

/** `polling`: this service has no stream; pages ask again by themselves. */
export type LiveState = "connecting" | "live" | "lost" | "polling";

export interface Watcher {
  /** A run has started, ended, or changed its state. */
  run?(summary: RunSummary): void;
  /** Something may have been missed: read anew. */
  reset?(): void;
  state?(state: LiveState, retryInMs: number): void;
}

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 15_000;
const SILENCE_MS = 45_000; // three of the comments that the service sends every 15 s

export class Live {
  state: LiveState = "connecting";
  private retryInMs = 0;
  private lastId = "";
  private readonly watchers = new Set<Watcher>();
  private wake: (() => void) | null = null;
  private controller: AbortController | null = null;
  private isResting = false;

  private readonly api: Api;

  constructor(api: Api) {
    this.api = api;
  }

  /** Until `signal` aborts. */
  watch(watcher: Watcher, signal: AbortSignal): void {
    if (signal.aborted) return;
    this.watchers.add(watcher);
    signal.addEventListener("abort", () => this.watchers.delete(watcher), { once: true });
    watcher.state?.(this.state, this.retryInMs);
  }

  /** Something else found the service there, or gone: try at once. */
  poke(): void {
    this.wake?.();
  }

  /**
   * Nobody looks: hang up until `resume`. A browser has six connections to a service, for all its tabs and for the pages
   * that it keeps behind its back button: streams that nobody reads would take them.
   */
  rest(): void {
    this.isResting = true;
    this.controller?.abort();
  }

  resume(): void {
    this.isResting = false;
    this.poke();
  }

  /** Connects for ever. */
  async run(): Promise<never> {
    let failures = 0;
    for (;;) {
      if (this.isResting) {
        await this.pause(null);
        continue;
      }
      const answered = await this.connected();
      if (this.isResting) continue;
      if (answered === "none") {
        this.become("polling", 0);
        await this.pause(60_000);
        continue;
      }
      failures = answered === "ended" ? 0 : failures + 1;
      const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(failures, 10)) * (0.75 + Math.random() / 2);
      this.become("lost", wait);
      await this.pause(wait);
    }
  }

  private async connected(): Promise<"ended" | "failed" | "none"> {
    const controller = (this.controller = new AbortController());
    let silence = setTimeout(() => controller.abort(), SILENCE_MS);
    let wasLive = false;
    try {
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      if (this.lastId !== "") headers["Last-Event-ID"] = this.lastId;
      const answer = await this.api.open("stream", headers, () => controller.signal, { cache: "no-store" });
      if (answer.status === 404) return "none";
      if (!answer.ok || answer.body === null) throw problemOf(answer.status, answer.statusText, "", null);
      const missed = this.state !== "connecting" && this.lastId === "";
      wasLive = true;
      this.become("live", 0);
      if (missed) this.reset();
      const parser = new EventParser(this.lastId);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return "ended";
        clearTimeout(silence);
        silence = setTimeout(() => controller.abort(), SILENCE_MS);
        for (const event of parser.feed(value)) {
          this.lastId = event.id;
          if (event.type === "reset") this.reset();
          else if (event.type.startsWith("run.")) this.say(event.data);
        }
      }
    } catch (error) {
      if (!isAbort(error) && asProblem(error).status === -1) console.error(error);
      return wasLive ? "ended" : "failed";
    } finally {
      clearTimeout(silence);
      controller.abort();
    }
  }

  private say(data: string): void {
    const summary = parse(data) as RunSummary;
    for (const watcher of [...this.watchers]) watcher.run?.(summary);
  }

  private reset(): void {
    for (const watcher of [...this.watchers]) watcher.reset?.();
  }

  private become(state: LiveState, retryInMs: number): void {
    this.state = state;
    this.retryInMs = retryInMs;
    for (const watcher of [...this.watchers]) watcher.state?.(state, retryInMs);
  }

  /** So long, or until somebody wakes it; null: only then. */
  private async pause(ms: number | null): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = ms === null ? undefined : setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.wake = null;
  }
}
