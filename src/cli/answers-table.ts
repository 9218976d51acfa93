import Table from "cli-table3";
import pc from "picocolors";
import type { SampleEvent } from "../train/events.ts";

/** Widest text of the base that is shown; it tends to run on. */
const LONGEST = 140;

/** Answers of the base and the adapted model side by side, `width` columns wide. */
export function answersTable(samples: readonly SampleEvent[], width: number): string {
  const inside = Math.max(60, Math.min(width, 120)) - 4;
  const narrow = Math.floor(inside * 0.26);
  const wide = Math.floor((inside - narrow) / 2);
  const table = new Table({
    head: ["Prompt", "Base model", "With the adapter"].map((name) => pc.bold(name)),
    colWidths: [narrow, wide, wide],
    wordWrap: true,
    style: { head: [], border: [] }, // colours come from picocolors, which knows when to leave them out
  });
  for (const { prompt, base, adapted } of samples)
    table.push([prompt, pc.dim(shortened(base)), pc.green(shortened(adapted))]);
  return table.toString();
}

function shortened(text: string): string {
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line.length > LONGEST ? `${line.slice(0, LONGEST - 1)}…` : line;
}
