import type { Adapter } from "../adapter/adapter.ts";
import { type AdapterBase, adapterBase } from "../adapter/adapter-base.ts";
import {
  attach,
  type Attachment,
  noAttachment,
  parameterOf,
  parametersOf,
} from "../adapter/attach.ts";
import { changedBase } from "../adapter/changed-base.ts";
import type { FamilyTargets } from "../adapter/targets.ts";
import { tiedCopies } from "../adapter/tied-copies.ts";
import { refuseNonFinite } from "../adapter/finite.ts";
import type { Engine, WeightSource } from "../backends/backend.ts";
import { type ChatTemplate, createChatTemplate } from "../data/chat-template.ts";
import { createTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { LorikeetError } from "../errors.ts";
import type { Checkpoint } from "../host/open-checkpoint.ts";
import { loraTargets } from "../models/lora-targets.ts";
import type { LoraCandidate } from "../passes/lora.ts";
import { convert } from "../tensor/convert.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { stepShape, trainingGraph, type TrainPlan } from "../train/plan.ts";
import { isEncoder, plainLogits } from "../train/text-model.ts";
import { checkAdapter } from "./check-adapter.ts";
import { checkWeights, refuseFurtherLayers } from "./check-weights.ts";
import { labelNames, withHead, withLabels, withLabelsOf } from "./classifier.ts";
import { classFeeds, lossFeeds } from "./feeds.ts";
import { embeddingsOf, logitsOf } from "./logits.ts";
import { type DeviceOptions, openEngine } from "./open-engine.ts";

/** A base model, with or without an adapter. The weights of the base are shared by all that are made from it. */
export interface Model {
  readonly checkpoint: Checkpoint;
  readonly device: DeviceOptions;
  readonly adapter: Adapter | undefined;
  /** @throws LorikeetError `no-tokenizer` when the checkpoint has none */
  readonly tokenizer: Tokenizer;
  /** The checkpoint's chat template; ChatML where it has none. */
  readonly chatTemplate: ChatTemplate;
  /** Layers that an adapter can be attached to. */
  readonly layers: readonly LoraCandidate[];
  /** What the model's family says about LoRA targets. */
  readonly family: FamilyTargets;
  /** What a graph of this model is built from. */
  readonly plan: TrainPlan;
  /** The base as adapters see it. */
  readonly base: AdapterBase;
  /** The frozen weights that the adapter stands on: the base's, unless its initialisation changed them. */
  readonly weights: WeightSource;
  /** Names of the classes of a classifier, by number; undefined for a language model. */
  readonly labels: readonly string[] | undefined;
  /** The same base with `adapter` in place of its own. @throws LorikeetError `adapter-mismatch` */
  withAdapter(adapter: Adapter): Model;
  /** The same encoder as a classifier of the classes `labels`; its head is new unless it has as many. */
  withLabels(labels: readonly string[]): Model;
  /**
   * Logits, f32 [batch, longest row, vocabulary], of rows of token ids; positions past a row's end are padding. Of a
   * classifier: [batch, labels].
   */
  logits(rows: readonly (readonly number[])[]): Promise<Tensor>;
  /**
   * Sentence embeddings by an encoder, f32 [batch, hidden]: the mean of each row's last hidden states.
   * @throws LorikeetError `unsupported-architecture` for a language model
   */
  embeddings(rows: readonly (readonly number[])[]): Promise<Tensor>;
  /**
   * Mean next-token cross-entropy of `inputIds` (rows of one length) and its gradient for each adapter tensor, by
   * PEFT key. `labels`: the ids to predict, −100 where there is no loss; the inputs themselves by default. Of a
   * classifier: the cross-entropy of `labels`, one number of a class for each row.
   */
  lossAndGradients(batch: {
    inputIds: readonly (readonly number[])[];
    labels?: readonly (readonly number[])[];
  }): Promise<{ loss: number; gradients: Map<string, Tensor> }>;
  /** An engine that holds the adapter's tensors; the caller disposes it. */
  openEngine(): Promise<Engine>;
  /** Releases the model's own engine. */
  dispose(): Promise<void>;
}

/** The model of an opened checkpoint. @throws LorikeetError `unsupported-architecture`, `missing-weight`, `weight-shape` */
export function createModel(checkpoint: Checkpoint, device: DeviceOptions = {}): Model {
  return makeModel(checkpoint, { device, tokenizer: once(() => tokenizerOf(checkpoint)) });
}

interface Shared {
  readonly device: DeviceOptions;
  readonly base?: AdapterBase;
  readonly tokenizer: () => Tokenizer;
}

function makeModel(given: Checkpoint, shared: Shared, adapter?: Adapter): Model {
  const config = adapter ? withLabelsOf(given.config, adapter) : given.config;
  const base = shared.base && config === given.config ? shared.base : baseOf({ ...given, config });
  const { layers, family, weights: stored } = base;
  const checkpoint = { ...given, config, weights: stored };
  const attachment = adapter ? attach(adapter, layers, family) : noAttachment;
  const plan: TrainPlan = { config, ...attachment, checkpointing: false };
  if (adapter) checkAdapter(plan, attachment, copiesOf(adapter, base));
  if (adapter) refuseNonFinite(adapter);
  const weights = adapter
    ? changedBase(stored, adapter, { layers, sites: attachment.sites })
    : stored;
  const open = (): Promise<Engine> => engineWith(weights, shared.device, attachment);
  const own = once(open);
  let isOpen = false;
  const engine = (): Promise<Engine> => {
    isOpen = true;
    return own();
  };
  return {
    checkpoint,
    device: shared.device,
    adapter,
    ...{ layers, family, plan, base, weights },
    labels: isEncoder(config) ? labelNames(config) : undefined,
    get tokenizer() {
      return shared.tokenizer();
    },
    get chatTemplate() {
      const { bosToken, eosToken } = shared.tokenizer().specials;
      const { chatTemplate, toolTemplate: withTools } = checkpoint;
      return createChatTemplate(chatTemplate, { withTools, bosToken, eosToken });
    },
    withAdapter: (next) => makeModel(checkpoint, { ...shared, base }, next),
    withLabels: (labels) =>
      createModel({ ...checkpoint, config: withLabels(config, labels) }, shared.device),
    logits: async (rows) => logitsOf(await engine(), plan, rows),
    embeddings: async (rows) => embeddingsOf(await engine(), plan, rows),
    async lossAndGradients({ inputIds, labels }) {
      const found = await gradientsOf(await engine(), plan, inputIds, labels ?? inputIds);
      const names = adapter ? parametersOf(adapter, layers, family) : new Map<string, string>();
      const keys = new Map([...names].map(([key, name]) => [name, key]));
      const byKey = [...found.gradients].map(([name, value]) => [keys.get(name)!, value] as const);
      return { loss: found.loss, gradients: new Map(byKey) };
    },
    openEngine: open,
    async dispose() {
      if (isOpen) await (await own()).dispose();
    },
  };
}

/** Parameters that a tied head has under its own name too. */
function copiesOf({ config, tensors }: Adapter, base: AdapterBase): ReadonlySet<string> {
  return new Set([...tiedCopies(config, tensors, base).keys()].map(parameterOf));
}

async function engineWith(
  weights: WeightSource,
  device: DeviceOptions,
  { values }: Attachment,
): Promise<Engine> {
  const engine = await openEngine(weights, device);
  for (const [name, value] of values) await engine.set(name, convert(value, "f32"));
  return engine;
}

async function gradientsOf(
  engine: Engine,
  plan: TrainPlan,
  ids: readonly (readonly number[])[],
  labels: readonly (readonly number[])[],
): Promise<{ loss: number; gradients: Map<string, Tensor> }> {
  const feeds = isEncoder(plan.config) ? classFeeds(ids, labels) : lossFeeds(ids, labels);
  const graph = trainingGraph(plan, { ...stepShape(feeds), hasSegments: false });
  const program = await engine.compile(graph);
  await engine.clearGradients();
  const { loss } = await program.run(feeds);
  const gradients = new Map<string, Tensor>();
  for (const name of Object.keys(graph.gradients))
    gradients.set(name, await engine.get(`${name}.grad`));
  await engine.clearGradients();
  await program.dispose();
  return { loss: Number(loss!.data[0]), gradients };
}

function baseOf(checkpoint: Checkpoint): AdapterBase {
  const { name, config } = checkpoint;
  const weights = withHead(checkpoint);
  const logits = plainLogits(config, { batch: 1, length: 1 });
  checkWeights(weights, [logits], name);
  refuseFurtherLayers(weights, [logits], name);
  return adapterBase([logits], loraTargets(String(config["model_type"])), weights);
}

function tokenizerOf({
  name,
  tokenizer,
  tokenizerConfig,
  generationConfig,
  config,
}: Checkpoint): Tokenizer {
  if (tokenizer === undefined)
    throw new LorikeetError(
      "no-tokenizer",
      `Expected tokenizer.json beside the weights of ${name}, found none`,
      {
        hint: "Save the tokenizer with transformers (AutoTokenizer.save_pretrained) into the model folder.",
      },
    );
  return createTokenizer({
    tokenizer,
    config: tokenizerConfig,
    generationConfig,
    modelConfig: config,
  });
}

function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}
