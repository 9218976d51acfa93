import { LorikeetError } from "../errors.ts";

/**
 * `answer`, which refuses to begin before what it gave last has ended: answers share one cache of keys and values.
 * @throws LorikeetError `session-busy`
 */
export function oneAtATime<A extends readonly unknown[], T>(
  answer: (...args: A) => AsyncGenerator<T, void, undefined>,
): (...args: A) => AsyncGenerator<T, void, undefined> {
  let isBusy = false;
  return async function* (...args) {
    if (isBusy)
      throw new LorikeetError(
        "session-busy",
        "Expected the answer before to have ended, got another prompt in the middle of it",
        {
          hint: "Await the one before (or leave its loop), or open a session for each; `openAdapters` answers several prompts at once.",
        },
      );
    isBusy = true;
    try {
      yield* answer(...args);
    } finally {
      isBusy = false;
    }
  };
}
