/** Every error that Lorikeet raises on purpose: a stable `code`, a message that says what was expected and got, a hint. */
export class LorikeetError extends Error {
  override readonly name = "LorikeetError";
  readonly code: string;
  readonly hint: string | undefined;

  /**
   * @param code stable identifier, documented in docs/errors.md (for example `lora-targets`)
   * @param message what was expected, what was got (name, shape, dtype)
   * @param options `hint`: what to do about it; `cause`: the underlying error
   */
  constructor(code: string, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }
}

/** `candidates` closest to `name` by edit distance, best first; for "did you mean" hints. */
export function nearest(name: string, candidates: Iterable<string>, count = 3): string[] {
  const limit = Math.max(2, Math.ceil(name.length / 2));
  return [...new Set(candidates)]
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
    .filter(({ distance }) => distance <= limit)
    .sort((a, b) => a.distance - b.distance)
    .slice(0, count)
    .map(({ candidate }) => candidate);
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(previous[j]! + 1, row[j - 1]! + 1, substitution));
    }
    previous = row;
  }
  return previous[b.length]!;
}
