/** The token of the API, where one is asked for: kept for this tab only. */

import type { Access } from "./api.ts";
import { ask } from "./dialog.ts";
import { h } from "./element.ts";
import type { Problem } from "./problem.ts";

const KEPT_AS = "headrace-token";

interface Told {
  answered(): void;
  failed(problem: Problem): void;
}

export class TokenAccess implements Access {
  private kept = sessionStorage.getItem(KEPT_AS) ?? "";
  private asking: Promise<string> | null = null;
  private readonly told: Told;

  constructor(told: Told) {
    this.told = told;
  }

  token(): string {
    return this.kept;
  }

  /** Asked once, however many requests were refused. */
  ask(refused: string): Promise<string> {
    if (this.kept !== refused) return Promise.resolve(this.kept);
    this.asking ??= this.asked(refused !== "").finally(() => {
      this.asking = null;
    });
    return this.asking;
  }

  answered(): void {
    this.told.answered();
  }

  failed(problem: Problem): void {
    this.told.failed(problem);
  }

  private async asked(wasRefused: boolean): Promise<string> {
    let given = "";
    await ask({
      title: "This service asks for a token",
      text: h("p", {}, wasRefused ? "The token was refused. " : "", "It is the setting ", h("code", {}, "api.token"), "."),
      fields: [{ name: "token", label: "Token", kind: "password", required: true, help: "Kept until this tab is closed." }],
      verb: "Go on",
      act: async ({ token = "" }) => {
        given = token;
      },
    });
    this.kept = given;
    if (given === "") sessionStorage.removeItem(KEPT_AS);
    else sessionStorage.setItem(KEPT_AS, given);
    return given;
  }
}
