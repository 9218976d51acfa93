import type { Adapter } from "../adapter/adapter.ts";
import { type ActiveAdapters, AdapterBank } from "../adapter/bank.ts";
import { lora, type LoraConfig } from "../adapter/lora-config.ts";
import { resolveTargets } from "../adapter/targets.ts";
import type { Engine } from "../backends/backend.ts";
import type { Message } from "../data/message.ts";
import { createDecoder, type Decoder, type DecodeShape } from "../generate/decoder.ts";
import { LorikeetError } from "../errors.ts";
import type { Graph } from "../ir/graph.ts";
import { contextOf } from "../models/config.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { decodeGraph, type TrainPlan } from "../train/plan.ts";
import { type GeneratedToken, type GenerateOptions, openRow } from "./answer-row.ts";
import { logitsOf } from "./logits.ts";
import type { Model } from "./model.ts";
import { oneAtATime } from "./one-at-a-time.ts";
import { openEngine } from "./open-engine.ts";

/** An adapter by name, several with their factors, or null: the base alone. */
export type AdapterChoice = string | ActiveAdapters | null;

/** What an adapter bank has room for. */
export interface AdaptersOptions {
  /** Ranks of all loaded adapters together; 64 by default. */
  readonly rank?: number;
  /** The layers that adapters may be on, as in `lora()`; "all-linear" by default. */
  readonly targetModules?: LoraConfig["targetModules"];
}

/** One row of a batch: its prompt, and its adapter (by default the active ones). */
export interface AdapterPrompt {
  readonly prompt: string | readonly Message[];
  readonly adapter?: AdapterChoice;
}

/** Several adapters on one base in one engine. Loading and switching compile nothing. */
export interface Adapters {
  /** Names of the loaded adapters. */
  readonly names: readonly string[];
  /** What acts on rows that name no adapter; {} is the base alone. */
  readonly active: ActiveAdapters;
  /** Loads `adapter`; it acts when it is chosen. @throws LorikeetError `bank-adapter`, `bank-full`, `adapter-name` */
  loadAdapter(name: string, adapter: Adapter): Promise<void>;
  /** Puts `adapter` in the place of the loaded one called `name`. @throws LorikeetError as `loadAdapter` */
  replaceAdapter(name: string, adapter: Adapter): Promise<void>;
  /** @throws LorikeetError `adapter-name` */
  deleteAdapter(name: string): Promise<void>;
  /** @throws LorikeetError `adapter-name` */
  renameAdapter(from: string, to: string): void;
  /** Chooses what acts from now on. @throws LorikeetError `adapter-name`, `adapter-factor` */
  setAdapter(choice: AdapterChoice): void;
  /** The base alone acts until `enableAdapters`. */
  disableAdapters(): void;
  /** Undoes `disableAdapters`. */
  enableAdapters(): void;
  /** Logits, f32 [batch, longest row, vocabulary], of rows of ids, each with its choice of adapters. */
  logits(rows: readonly (readonly number[])[], choices?: readonly AdapterChoice[]): Promise<Tensor>;
  /** Answers all prompts in one batch, token by token; `row` says whose token it is. @throws LorikeetError `session-busy` */
  generate(
    prompts: readonly AdapterPrompt[],
    options?: GenerateOptions,
  ): AsyncGenerator<GeneratedToken & { readonly row: number }, void, undefined>;
  dispose(): Promise<void>;
}

/** Opens an engine on the base of `model` with room for several adapters. @throws LorikeetError `lora-targets` */
export async function openAdapters(model: Model, options: AdaptersOptions = {}): Promise<Adapters> {
  const { rank = 64, targetModules = "all-linear" } = options;
  const targets = resolveTargets(lora({ targetModules }), model.layers, model.family);
  const layers = model.layers.filter(({ module }) => targets.has(module));
  const bank = new AdapterBank(rank, layers);
  const engine = await openEngine(model.checkpoint.weights, model.device);
  const adapters = new EngineAdapters(model, engine, bank);
  await adapters.write(bank.tensors);
  return adapters;
}

class EngineAdapters implements Adapters {
  private readonly model: Model;
  private readonly engine: Engine;
  private readonly bank: AdapterBank;
  private readonly plan: TrainPlan;
  private readonly decoder: Decoder;
  private chosen: ActiveAdapters = {};
  private isEnabled = true;
  /** Factors of the batch that is being answered. */
  private rowScales: Tensor;
  readonly generate: Adapters["generate"] = oneAtATime((...args) => this.answer(...args));

  constructor(model: Model, engine: Engine, bank: AdapterBank) {
    this.model = model;
    this.engine = engine;
    this.bank = bank;
    this.plan = {
      config: model.checkpoint.config,
      sites: bank.sites,
      trainsWeight: () => false,
      checkpointing: false,
      bankRank: bank.rank,
    };
    this.rowScales = bank.scales([]);
    const graphFor = (shape: DecodeShape): Graph => decodeGraph(this.plan, shape);
    this.decoder = createDecoder(engine, graphFor, {
      context: contextOf(model.checkpoint.config),
      more: () => ({ adapter_scales: this.rowScales }),
    });
  }

  get names(): readonly string[] {
    return this.bank.names;
  }

  get active(): ActiveAdapters {
    return this.isEnabled ? this.chosen : {};
  }

  async write(tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    await Promise.all([...tensors].map(([name, value]) => this.engine.set(name, value)));
  }

  async loadAdapter(name: string, adapter: Adapter): Promise<void> {
    await this.write(this.bank.add(name, adapter));
  }

  async replaceAdapter(name: string, adapter: Adapter): Promise<void> {
    await this.write(this.bank.add(name, adapter, { replace: true }));
  }

  async deleteAdapter(name: string): Promise<void> {
    const changed = this.bank.delete(name);
    const { [name]: _, ...others } = this.chosen;
    this.chosen = others;
    await this.write(changed);
  }

  renameAdapter(from: string, to: string): void {
    this.bank.rename(from, to);
    const renamed = Object.entries(this.chosen).map(([name, factor]) => [
      name === from ? to : name,
      factor,
    ]);
    this.chosen = Object.fromEntries(renamed) as ActiveAdapters;
  }

  setAdapter(choice: AdapterChoice): void {
    const factors = factorsOf(choice);
    this.bank.scales([factors]);
    this.chosen = factors;
  }

  disableAdapters(): void {
    this.isEnabled = false;
  }

  enableAdapters(): void {
    this.isEnabled = true;
  }

  async logits(
    rows: readonly (readonly number[])[],
    choices: readonly AdapterChoice[] = [],
  ): Promise<Tensor> {
    if (choices.length > rows.length)
      throw new LorikeetError(
        "shape",
        `Expected a choice of adapters for each of ${rows.length} rows at most, got ${choices.length}`,
      );
    const adapter_scales = this.scalesOf(rows.map((_, row) => choices[row]));
    return logitsOf(this.engine, this.plan, rows, { adapter_scales });
  }

  private async *answer(
    prompts: readonly AdapterPrompt[],
    options: GenerateOptions = {},
  ): AsyncGenerator<GeneratedToken & { readonly row: number }, void, undefined> {
    if (prompts.length === 0) return;
    this.rowScales = this.scalesOf(prompts.map(({ adapter }) => adapter));
    const rows = prompts.map(({ prompt }, row) => openRow(this.model, prompt, options, row));
    let next = await this.decoder.start(rows.map(({ ids }) => ids));
    for (;;) {
      for (const [row, state] of rows.entries())
        for (const token of state.take(next[row]!)) yield { row, ...token };
      if (rows.every((row) => row.isDone())) return;
      next = await this.decoder.next(
        rows.map((row) => (row.isDone() ? undefined : row.ids.at(-1))),
      );
    }
  }

  async dispose(): Promise<void> {
    await this.decoder.dispose();
    await this.engine.dispose();
  }

  private scalesOf(choices: readonly (AdapterChoice | undefined)[]): Tensor {
    return this.bank.scales(
      choices.map((choice) => (choice === undefined ? this.active : factorsOf(choice))),
    );
  }
}

function factorsOf(choice: AdapterChoice): ActiveAdapters {
  if (choice === null) return {};
  return typeof choice === "string" ? { [choice]: 1 } : choice;
}
