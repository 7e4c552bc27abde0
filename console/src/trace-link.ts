/** The address of a run's trace, from the operator's template. Pure. */

/** `template` has `{trace_id}`; "" if there is none, or if it would not be an address of the web. */
export function traceAddress(template: string | undefined, traceId: string): string {
  if (!template || !template.includes("{trace_id}") || !/^[0-9a-f]{32}$/.test(traceId)) return "";
  const address = template.replaceAll("{trace_id}", traceId);
  try {
    const { protocol } = new URL(address);
    return protocol === "http:" || protocol === "https:" ? address : "";
  } catch {
    return "";
  }
}
