/** Holds back text that may be the start of a stop string. */
export interface StopFilter {
  /** Text that is safe to show after `piece`; `stopped` once a stop string is complete. */
  push(piece: string): { text: string; stopped: boolean };
  /** What was held back, when nothing more comes. */
  flush(): string;
}

/** A filter that cuts text at the first of `stops`. */
export function stopFilter(stops: readonly string[]): StopFilter {
  let held = "";
  return {
    push(piece) {
      held += piece;
      const ends = stops.map((stop) => held.indexOf(stop)).filter((at) => at >= 0);
      if (ends.length > 0) {
        const text = held.slice(0, Math.min(...ends));
        held = "";
        return { text, stopped: true };
      }
      const keep = Math.max(0, ...stops.map((stop) => overlap(held, stop)));
      const text = held.slice(0, held.length - keep);
      held = held.slice(held.length - keep);
      return { text, stopped: false };
    },
    flush() {
      const text = held;
      held = "";
      return text;
    },
  };
}

/** Length of the longest end of `text` that `stop` begins with. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--)
    if (text.endsWith(stop.slice(0, length))) return length;
  return 0;
}
