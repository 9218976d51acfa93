import { join } from "node:path";
import type { Adapter } from "../adapter/adapter.ts";
import type { DataWarning } from "../data/data-warnings.ts";
import {
  type AdapterStorage,
  claimOutput,
  hasAdapter,
  latestCheckpoint,
  type RunCheckpoint,
  saveCheckpoint,
} from "../host/run-store.ts";
import { freshState, type RunState } from "../train/setup.ts";
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
  /** The best adapter seen, where that is the result. */
  chosen(): Adapter | undefined;
  /** Writes the result, what `make` makes of the chosen adapter or else `last()`, and returns it. */
  finish(
    last: () => Promise<Adapter>,
    make?: (adapter: Adapter) => Promise<Adapter>,
  ): Promise<Adapter>;
}

/** Whether another process writes for this one, which trains with it. */
export function isFollower({ ranks }: Pick<ResolvedRun, "ranks">): boolean {
  return ranks !== undefined && ranks.rank > 0;
}

/** Opens the store of `run`, whose adapters are files of `storage`. @throws LorikeetError `output-exists` */
export async function openRunStore(run: ResolvedRun, storage: AdapterStorage): Promise<RunStore> {
  const { config, outputDir } = run;
  const target = isFollower(run) ? undefined : outputDir;
  if (target !== undefined) await claimOutput(target, config);
  const resumed =
    outputDir !== undefined && config.resume
      ? await latestCheckpoint(outputDir, storage)
      : undefined;
  const bestFolder = join(outputDir ?? "", "best");
  const hasBest = resumed?.state.best !== undefined && (await hasAdapter(bestFolder));
  let best: Adapter | undefined = hasBest ? await storage.load(bestFolder) : undefined;
  const chosen = (): Adapter | undefined => (config.load_best_model_at_end ? best : undefined);
  return {
    resumed,
    chosen,
    state: resumed?.state ?? freshState,
    async save(state, reason, parts) {
      if (reason === "best") best = parts.adapter;
      if (target === undefined) return "memory";
      if (reason !== "best")
        return saveCheckpoint(target, { ...parts, state }, config.save_total_limit, storage);
      await storage.save(parts.adapter, bestFolder);
      return bestFolder;
    },
    async finish(last, make) {
      const trained = chosen() ?? (await last());
      const adapter = make ? await make(trained) : trained;
      if (target !== undefined) await (storage.saveResult ?? storage.save)(adapter, target);
      return adapter;
    },
  };
}

/** A warning where a run was to go on and there is no checkpoint of it: it begins at step 0. */
export function resumeWarnings(
  { config, outputDir }: Pick<ResolvedRun, "config" | "outputDir">,
  { resumed }: Pick<RunStore, "resumed">,
): DataWarning[] {
  if (!config.resume || resumed || outputDir === undefined) return [];
  const message = `there is no checkpoint in ${outputDir} to resume: the run starts anew`;
  return [{ code: "nothing-to-resume", message }];
}
