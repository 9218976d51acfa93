import type { TrainEvent } from "../../train/events.ts";

/** A number worth showing, with its unit. */
export interface RunNumber {
  readonly label: string;
  readonly value: string;
  readonly note?: string;
  /** Whether the note is good news. */
  readonly isGood?: boolean;
}

/** What `events` say about a run: losses before and after, steps, time, speed, memory. */
export function runNumbers(events: readonly TrainEvent[]): RunNumber[] {
  const steps = events.filter((event) => event.type === "step");
  const evals = events.filter((event) => event.type === "eval");
  const end = events.find((event) => event.type === "end");
  const last = steps.at(-1);
  const numbers: RunNumber[] = [];
  const [first] = evals;
  if (first && evals.length > 1) {
    const best = evals.reduce((low, event) => (event.loss < low.loss ? event : low));
    const fall = (1 - best.loss / first.loss) * 100;
    numbers.push({
      label: "Evaluation loss",
      value: best.loss.toFixed(2),
      note: `from ${first.loss.toFixed(2)}, ${Math.abs(fall).toFixed(0)} % ${fall < 0 ? "higher" : "lower"}`,
      isGood: fall > 0,
    });
  } else if (first) numbers.push({ label: "Evaluation loss", value: first.loss.toFixed(2) });
  if (last) {
    numbers.push({ label: "Training loss", value: last.loss.toFixed(2) });
    numbers.push({
      label: "Steps",
      value: String(last.step),
      note: `${last.epoch.toFixed(1)} epochs`,
    });
  }
  if (end) numbers.push({ label: "Time", value: formatDuration(end.seconds) });
  if (end && end.seconds > 0) {
    const rate = end.tokens / end.seconds;
    numbers.push({
      label: "Speed",
      value: last?.unit === "images" ? rate.toFixed(1) : Math.round(rate).toLocaleString("en"),
      note: `${last?.unit ?? "tokens"} a second`,
    });
  }
  const peak = steps.reduce((max, { memoryBytes }) => Math.max(max, memoryBytes), 0);
  if (peak > 0) numbers.push({ label: "Memory", value: formatBytes(peak) });
  return numbers;
}

/** `seconds` as a person says it: 8.2 s, 1 min 5 s, 2 h 3 min. */
export function formatDuration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

/** `bytes` in binary units: 291 KiB, 512 MiB, 1.9 GiB. */
export function formatBytes(bytes: number): string {
  if (bytes < 2 ** 20) return `${Math.round(bytes / 2 ** 10)} KiB`;
  if (bytes < 2 ** 30) return `${Math.round(bytes / 2 ** 20)} MiB`;
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
