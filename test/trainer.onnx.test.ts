import { afterEach, describe, expect, it } from "vitest";
import { initialTensor } from "../src/adapter/init.ts";
import { lora } from "../src/adapter/lora-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { lossFeeds } from "../src/api/feeds.ts";
import type { Engine } from "../src/backends/backend.ts";
import { createOnnxEngine } from "../src/backends/onnx/engine.ts";
import { causalLM } from "../src/models/registry.ts";
import { loraCandidates } from "../src/passes/lora.ts";
import { Random } from "../src/tensor/random.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";
import type { TrainEvent } from "../src/train/events.ts";
import {
  stepShape,
  trainableParameters,
  trainingGraph,
  type TrainPlan,
} from "../src/train/plan.ts";
import { freshState, type RunState, type TrainSetup, type Window } from "../src/train/setup.ts";
import { trainLoop } from "../src/train/trainer.ts";
import { tinyModel } from "./support/tiny.ts";

const config = lora({ r: 4, alpha: 8, targetModules: "all-linear" });
/** So few elements that the engine computes halves of a batch at the same time. */
const few = lora({ r: 2, alpha: 4, targetModules: ["q_proj", "down_proj"] });
const engines: Engine[] = [];
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.dispose();
});

async function setUp(
  dropout = 0,
  { threads = 1, targets = config } = {},
): Promise<{ engine: Engine; plan: TrainPlan }> {
  const model = await tinyModel("llama");
  const graph = causalLM(model.config, { batch: 1, length: 1 });
  const candidates = loraCandidates([graph.head(graph.hidden)]);
  const sites = resolveTargets({ ...targets, dropout }, candidates, {
    defaults: [],
    head: "lm_head",
  });
  const plan: TrainPlan = {
    config: model.config,
    sites,
    trainsWeight: () => false,
    checkpointing: false,
  };
  const engine = createOnnxEngine({ weights: model.weights, threads });
  engines.push(engine);
  for (const { name, shape } of trainableParameters(plan))
    await engine.set(name!, initialTensor(targets, name!, shape, 7));
  return { engine, plan };
}

/** Rows of one sentence that is easy to learn, with a random start. */
function rows(count: number, seed: number): number[][] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => {
    const start = random.integer(40);
    return Array.from({ length: 12 }, (_, t) => (start + 3 * t) % 90);
  });
}

function scaled(feeds: Record<string, Tensor>, share: number): Record<string, Tensor> {
  const weights = feeds["loss_weights"]!;
  return {
    ...feeds,
    loss_weights: tensor(
      "f32",
      weights.shape,
      (weights.data as Float32Array).map((w) => w * share),
    ),
  };
}

/** `steps` windows of 4 rows in `parts` micro-batches. */
async function* windows(cursor: unknown, parts: number): AsyncGenerator<Window> {
  for (let step = (cursor as number | undefined) ?? 0; ; step++) {
    const all = rows(4, step);
    const size = 4 / parts;
    const batches = Array.from({ length: parts }, (_, i) => {
      const part = all.slice(i * size, (i + 1) * size);
      return scaled(lossFeeds(part, part), 1 / parts);
    });
    await Promise.resolve();
    yield { batches, tokens: 48, epoch: step / 10, cursor: step + 1 };
  }
}

function setupFor(
  engine: Engine,
  plan: TrainPlan,
  options: Partial<TrainSetup> & { parts?: number },
): TrainSetup {
  return {
    engine,
    graphFor: (batch) => trainingGraph(plan, stepShape(batch)),
    windows: (cursor) => windows(cursor, options.parts ?? 1),
    optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
    learningRateAt: () => 5e-3,
    totalSteps: 8,
    seed: 3,
    state: freshState,
    evalSteps: 1000,
    patience: 0,
    saveSteps: 0,
    save: () => Promise.resolve("memory"),
    now: () => 0,
    memoryBytes: () => 0,
    ...options,
  };
}

async function run(setup: TrainSetup): Promise<TrainEvent[]> {
  const events: TrainEvent[] = [];
  for await (const event of trainLoop(setup)) events.push(event);
  return events;
}

const lossesOf = (events: readonly TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" ? [event.loss] : []));

async function stateOf(engine: Engine, plan: TrainPlan): Promise<Map<string, Tensor>> {
  const state = new Map<string, Tensor>();
  for (const { name } of trainableParameters(plan))
    for (const part of ["", ".exp_avg", ".exp_avg_sq"])
      state.set(name! + part, await engine.get(name! + part));
  return state;
}

describe("trainLoop", () => {
  it("learns, and ends with a checkpoint and an end event", async () => {
    const { engine, plan } = await setUp();
    const events = await run(
      setupFor(engine, plan, { totalSteps: 40, learningRateAt: () => 2e-2 }),
    );
    const losses = lossesOf(events);
    expect(losses).toHaveLength(40);
    expect(losses.at(-1)!).toBeLessThan(losses[0]! - 1);
    expect(events.slice(-2).map(({ type }) => type)).toEqual(["checkpoint", "end"]);
    expect(events.at(-1)).toMatchObject({ reason: "completed", step: 40, tokens: 40 * 48 });
  });

  it("accumulates micro-batches to what the large batch gives, within 1e-5", async () => {
    const [whole, split] = [await setUp(), await setUp()];
    const a = lossesOf(await run(setupFor(whole.engine, whole.plan, { parts: 1 })));
    const b = lossesOf(await run(setupFor(split.engine, split.plan, { parts: 4 })));
    a.forEach((loss, i) => {
      expect(Math.abs(loss - b[i]!)).toBeLessThan(1e-5);
    });
  });

  it.each([
    { name: "one thread", options: {} },
    { name: "halves in two threads", options: { threads: 2, targets: few } },
  ])("continues from a saved state to the same bits, with dropout: $name", async ({ options }) => {
    const fresh = (): ReturnType<typeof setUp> => setUp(0.3, options);
    const [once, twice, later] = [await fresh(), await fresh(), await fresh()];
    const uninterrupted = lossesOf(await run(setupFor(once.engine, once.plan, {})));
    let kept: RunState = freshState;
    const save = (state: RunState): Promise<string> => Promise.resolve(((kept = state), "memory"));
    const first = lossesOf(await run(setupFor(twice.engine, twice.plan, { totalSteps: 3, save })));
    for (const [name, value] of await stateOf(twice.engine, twice.plan))
      await later.engine.set(name, value);
    const rest = lossesOf(await run(setupFor(later.engine, later.plan, { state: kept })));
    expect([...first, ...rest]).toEqual(uninterrupted);
    const [want, got] = [
      await stateOf(once.engine, once.plan),
      await stateOf(later.engine, later.plan),
    ];
    for (const [name, value] of want) expect(got.get(name)!.data, name).toEqual(value.data);
  });

  it("computes halves of a batch at the same time where there are two threads, within 1e-5", async () => {
    const one = await setUp(0, { targets: few });
    const wanted = lossesOf(await run(setupFor(one.engine, one.plan, {})));
    const two = await setUp(0, { threads: 2, targets: few });
    const shape = { batch: 2, length: 12, rows: 22, hasSegments: false };
    expect(await two.engine.compilePaired!(trainingGraph(two.plan, shape))).toBeDefined();
    const got = lossesOf(await run(setupFor(two.engine, two.plan, {})));
    got.forEach((loss, i) => {
      expect(Math.abs(loss - wanted[i]!)).toBeLessThan(1e-5);
    });
    const [a, b] = [await stateOf(one.engine, one.plan), await stateOf(two.engine, two.plan)];
    for (const [name, { data }] of a)
      data.forEach((value, i) => {
        expect(Math.abs(Number(value) - Number(b.get(name)!.data[i])), name).toBeLessThan(1e-4);
      });
  });

  it("stops on a signal after the step in flight", async () => {
    const { engine, plan } = await setUp();
    const controller = new AbortController();
    const setup = setupFor(engine, plan, { signal: controller.signal, totalSteps: 100 });
    const events: TrainEvent[] = [];
    for await (const event of trainLoop(setup)) {
      events.push(event);
      if (event.type === "step" && event.step === 2) controller.abort();
    }
    expect(events.at(-1)).toMatchObject({ type: "end", reason: "interrupted", step: 2 });
  });

  it("stops early when evaluations get no better, and keeps the best", async () => {
    const { engine, plan } = await setUp();
    const evaluations = [3, 2, 2.5, 2.5, 1];
    const saved: string[] = [];
    const setup = setupFor(engine, plan, {
      evaluate: () => Promise.resolve(evaluations.shift()!),
      evalSteps: 2,
      patience: 2,
      save: (state, reason) => Promise.resolve((saved.push(`${reason} ${state.step}`), "memory")),
      totalSteps: 20,
    });
    const events = await run(setup);
    expect(events.at(-1)).toMatchObject({
      reason: "early-stop",
      step: 6,
      best: { step: 2, loss: 2 },
    });
    expect(saved).toEqual(["best 0", "best 2", "end 6"]);
    const state = { ...setup.state, step: 6, epoch: 0.5, evalsSinceBest: 2 };
    const again = await run({ ...setup, state }); // stopped is stopped, also when resumed
    expect(again.map(({ type }) => type)).toEqual(["checkpoint", "end"]);
    expect(again.at(-1)).toMatchObject({ epoch: 0.5 });
  });

  it("names step and batch of a loss that is not finite, after saving the last good state", async () => {
    const { engine, plan } = await setUp();
    const saved: number[] = [];
    async function* broken(): AsyncGenerator<Window> {
      for await (const window of windows(0, 2)) {
        const isBad = window.cursor === 3;
        yield isBad
          ? {
              ...window,
              batches: [window.batches[0]!, scaled(window.batches[1]!, NaN)],
              rows: [["a.jsonl:1"], ["a.jsonl:7", "a.jsonl:9"]],
            }
          : window;
      }
    }
    const setup = setupFor(engine, plan, {
      windows: broken,
      save: (state) => Promise.resolve((saved.push(state.step), "memory")),
    });
    await expect(run(setup)).rejects.toMatchObject({
      code: "non-finite-loss",
      message: expect.stringMatching(
        /got NaN at step 3, micro-batch 2 of its window \(a\.jsonl:7, a\.jsonl:9\)/,
      ) as unknown,
    });
    expect(saved).toEqual([2]);
  });
});
