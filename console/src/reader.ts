/** Who sits here, for records that say who did something: a name that the reader gave once. */

const KEPT_AS = "headrace-name";

/** "console" if nobody gave one. */
export function readerName(): string {
  return givenName() || "console";
}

export function givenName(): string {
  return localStorage.getItem(KEPT_AS) ?? "";
}

export function keepName(name: string): void {
  if (name !== "") localStorage.setItem(KEPT_AS, name);
}
