import { LorikeetError } from "../errors.ts";

const SHOWN = 20;

/** An error that lists every fault found in a file (the first 20, and how many more there are). */
export function faultsError(
  code: string,
  expected: string,
  faults: readonly string[],
  hint: string,
): LorikeetError {
  const rest = faults.length > SHOWN ? [`… and ${faults.length - SHOWN} more`] : [];
  const lines = [...faults.slice(0, SHOWN), ...rest].map((fault) => `  - ${fault}`);
  const count = faults.length === 1 ? "1 fault" : `${faults.length} faults`;
  return new LorikeetError(code, `Expected ${expected}, found ${count}:\n${lines.join("\n")}`, {
    hint,
  });
}

/** `name` as it stands in messages: quoted, control characters escaped, at most 120 characters. */
export function quoteName(name: string): string {
  return JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name);
}
