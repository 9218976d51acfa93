import { join } from "node:path";
import type { Adapter } from "../adapter/adapter.ts";
import { loadAdapterFolder, saveAdapter } from "../host/adapter-files.ts";
import { isFile } from "../host/files.ts";
import {
  claimOutput,
  latestCheckpoint,
  type RunCheckpoint,
  saveCheckpoint,
} from "../host/run-store.ts";
import { freshState, type RunState } from "../train/trainer.ts";
import type { ResolvedRun } from "./train-options.ts";

/** Where a run keeps its state and results: a folder, or memory alone. */
export interface RunStore {
  /** The checkpoint that the run continues from. */
  readonly resumed: RunCheckpoint | undefined;
  readonly state: RunState;
  /** Keeps a state and returns where it is. */
  save(
    state: RunState,
    reason: "step" | "best" | "end",
    parts: Omit<RunCheckpoint, "state">,
  ): Promise<string>;
  /** Writes the result, `last()` or the best adapter seen, and returns it. */
  finish(last: () => Promise<Adapter>): Promise<Adapter>;
}

/** Opens the store of `run`. @throws LorikeetError `output-exists` */
export async function openRunStore({ outputDir, config }: ResolvedRun): Promise<RunStore> {
  if (outputDir !== undefined) await claimOutput(outputDir, config);
  const resumed =
    outputDir !== undefined && config.resume ? await latestCheckpoint(outputDir) : undefined;
  const bestFolder = join(outputDir ?? "", "best");
  const hasBest =
    resumed?.state.best !== undefined && (await isFile(join(bestFolder, "adapter_config.json")));
  let best: Adapter | undefined = hasBest ? await loadAdapterFolder(bestFolder) : undefined;
  return {
    resumed,
    state: resumed?.state ?? freshState,
    async save(state, reason, parts) {
      if (reason === "best") best = parts.adapter;
      if (outputDir === undefined) return "memory";
      if (reason !== "best")
        return saveCheckpoint(outputDir, { ...parts, state }, config.save_total_limit);
      await saveAdapter(parts.adapter, bestFolder);
      return bestFolder;
    },
    async finish(last) {
      const adapter = (config.load_best_model_at_end && best) || (await last());
      if (outputDir !== undefined) await saveAdapter(adapter, outputDir);
      return adapter;
    },
  };
}
