/** `/approvals`: what waits for somebody's decision, and the place to give it. */

import { shown, type Context, type Shown } from "../context.ts";
import { ask, say } from "../dialog.ts";
import { h, type Child } from "../element.ts";
import { facts, runLink, time, workflowLink } from "../piece.ts";
import { empty, notesOf } from "../problem-box.ts";
import { givenName, keepName, readerName } from "../reader.ts";
import { withQuery } from "../route.ts";
import type { Approval, Listed } from "../shapes.ts";

const EVERY_MS = 5_000;

export function approvals(context: Context, query: URLSearchParams): Child {
  context.title("Approvals");
  const cursor = query.get("cursor");
  const list: Shown<Listed<Approval>> = shown<Listed<Approval>>(
    context,
    (signal) => context.api.get("approvals", { limit: "50", cursor }, signal),
    (page) => [
      notesOf(page.notes),
      pending(page.items).length === 0
        ? empty("Nothing waits for a decision.", "A workflow asks for one with ", h("code", {}, "await run.approval(...)"), ".")
        : pending(page.items).map((approval) => card(context, approval, () => list.refresh())),
      h(
        "nav",
        { class: "pages", "aria-label": "Pages" },
        cursor && h("a", { class: "button", href: "approvals" }, "First page"),
        page.next && h("a", { class: "button", href: withQuery("approvals", { cursor: page.next }) }, "More"),
      ),
    ],
    { everyMs: () => EVERY_MS, label: "approvals" },
  );
  context.live.watch({ reset: () => void list.refresh() }, context.signal);
  return [h("h1", {}, "Approvals"), list.node];
}

function pending(items: readonly Approval[]): Approval[] {
  return items.filter((approval) => approval.status === undefined || approval.status === "pending");
}

function card(context: Context, approval: Approval, refresh: () => Promise<void>): HTMLElement {
  const button = (decision: Decision, name: string, tone: string): HTMLElement =>
    h("button", { type: "button", class: tone, onclick: () => void decide(context, approval, decision, refresh) }, name);
  return h(
    "section",
    { class: "card" },
    h("h2", {}, approval.title === "" ? approval.step : approval.title),
    facts(
      ["Workflow", workflowLink(approval.namespace, approval.workflow)],
      ["Run", runLink(approval.run)],
      ["Step", h("code", {}, approval.step)],
      ["May decide", approval.roles.length > 0 ? approval.roles.join(", ") : "anyone"],
      ["Asked", [time(approval.requested_at), " (", time(approval.requested_at, { asRelative: true }), ")"]],
      ["Expires", approval.due_at ? [time(approval.due_at), " (", time(approval.due_at, { asRelative: true }), ")"] : "never"],
    ),
    h("div", { class: "buttons" }, button("approve", "Approve", "primary"), button("reject", "Reject", "danger")),
  );
}

export type Decision = "approve" | "reject";

/** Ask for note and name, and send the decision. */
export async function decide(
  context: Context,
  approval: Pick<Approval, "id" | "run" | "step" | "title" | "roles">,
  decision: Decision,
  refresh: () => Promise<void>,
): Promise<void> {
  const isApproval = decision === "approve";
  const roles = approval.roles.map((role) => ({
    name: `role ${role}`,
    label: `I decide as ${role}`,
    kind: "check" as const,
    value: approval.roles.length === 1 ? "yes" : "",
  }));
  await ask({
    title: `${isApproval ? "Approve" : "Reject"}: ${approval.title || approval.step}`,
    text: h("p", {}, "The run goes on with your answer. It cannot be taken back."),
    fields: [
      { name: "note", label: "Note", help: "Given to the workflow, and kept in the run log." },
      { name: "by", label: "Your name", value: givenName(), maxLength: 200 },
      ...roles,
    ],
    verb: isApproval ? "Approve" : "Reject",
    isDangerous: !isApproval,
    act: async (values) => {
      const by = values["by"] ?? "";
      keepName(by);
      const body = {
        by: by || readerName(),
        note: values["note"] ?? "",
        roles: approval.roles.filter((role) => values[`role ${role}`] === "yes"),
      };
      await context.api.post(`approvals/${encodeURIComponent(approval.id)}/${decision}`, body);
      say(isApproval ? "Approved." : "Rejected.", runLink(approval.run));
      void refresh();
    },
  });
}
