import { open, readFile } from "node:fs/promises";
import type { TrainEvent } from "../../train/events.ts";
import { asFileError } from "../file-errors.ts";
import { writeAtomically } from "../files.ts";

/** A file of events, one line of JSON each. */
export interface MetricsFile {
  /** Adds one line; it is with the operating system when this returns, so killing the process does not lose it. */
  append(event: TrainEvent): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens metrics.jsonl at `path`: empty, or with what it held up to step `resumeFrom`. A line that a killed run
 * left unfinished is dropped, and so is what a run tells again when it resumes: its warnings, the checkpoint it is at.
 * @throws LorikeetError `disk-full`, `read-only`, `permission-denied`
 */
export async function openMetrics(path: string, resumeFrom?: number): Promise<MetricsFile> {
  const kept = resumeFrom === undefined ? [] : upToStep(await readMetrics(path), resumeFrom);
  const lines = kept.map(asLine);
  const told = new Set(lines);
  await writeAtomically(path, lines.join(""));
  const handle = await open(path, "a").catch((cause: unknown) => {
    throw asFileError(cause, path, "written");
  });
  return {
    async append(event) {
      const line = asLine(event);
      if (told.has(line)) return;
      try {
        await handle.appendFile(line);
      } catch (cause) {
        throw asFileError(cause, path, "written");
      }
    },
    close: () => handle.close(),
  };
}

/** The events of the metrics file at `path`, whole lines only; none when there is no file. */
export async function readMetrics(path: string): Promise<TrainEvent[]> {
  const text = await readFile(path, "utf8").catch(() => "");
  return text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line, (_, value: unknown) => value ?? NaN) as TrainEvent);
}

function asLine(event: TrainEvent): string {
  return `${JSON.stringify(event)}\n`; // not-a-number becomes null
}

function upToStep(events: readonly TrainEvent[], last: number): TrainEvent[] {
  const end = events.findIndex((event) => "step" in event && event.step > last);
  return (end < 0 ? events : events.slice(0, end)).filter(({ type }) => type !== "end");
}
