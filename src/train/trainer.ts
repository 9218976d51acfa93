import type { Program } from "../backends/backend.ts";
import { hash32 } from "../tensor/random.ts";
import { tensor } from "../tensor/tensor.ts";
import type { EndReason, TrainEvent } from "./events.ts";
import { adamw } from "./optimizer.ts";
import { failOn, rowsIn } from "./non-finite-loss.ts";
import type { Batch, RunState, TrainSetup, Window } from "./setup.ts";
import { stepPrograms } from "./step-programs.ts";

/**
 * Trains: forward and backward over each window's batches, AdamW, evaluation, checkpoints. Yields what happens.
 * @throws LorikeetError `non-finite-loss` naming the step and the batch, after saving the last good state
 */
export async function* trainLoop(setup: TrainSetup): AsyncGenerator<TrainEvent, void, undefined> {
  const { totalSteps, evalSteps, saveSteps, now } = setup;
  const programs = stepPrograms(setup);
  const clock = { began: now(), tokens: setup.state.tokens };
  let state = setup.state;
  let reason: EndReason = "completed";
  try {
    if (state.step === 0) {
      const first = await evaluated(setup, state);
      state = first.state;
      yield* first.events;
    }
    for await (const window of setup.windows(state.cursor)) {
      if (state.step >= totalSteps) break;
      if (setup.patience > 0 && state.evalsSinceBest >= setup.patience) {
        reason = "early-stop"; // here, as a run that is resumed may have stopped already
        break;
      }
      if (await isAborted(setup)) {
        reason = "interrupted";
        break;
      }
      const wasLean = programs.isLean();
      const done = await stepped(setup, programs.get, window, { state, clock });
      state = done.state;
      if (programs.isLean() !== wasLean) yield CHECKPOINTED;
      yield done.event;
      const { step } = state;
      if (step % evalSteps === 0 || step === totalSteps) {
        const result = await evaluated(setup, state);
        state = result.state;
        yield* result.events;
      }
      if (saveSteps > 0 && step % saveSteps === 0 && step < totalSteps)
        yield { type: "checkpoint", step, path: await setup.save(state, "step") };
    }
    yield { type: "checkpoint", step: state.step, path: await setup.save(state, "end") };
    yield endOf(state, { reason, seconds: (now() - clock.began) / 1000 });
  } finally {
    await programs.dispose();
  }
}

/** Whether any of the processes that train together is to stop: all do, after the same step. */
async function isAborted({ engine, signal }: TrainSetup): Promise<boolean> {
  const own = signal?.aborted ? 1 : 0;
  return ((await engine.sum?.([own])) ?? [own])[0]! > 0;
}

/** One optimizer step on `window`. */
async function stepped(
  setup: TrainSetup,
  program: (batch: Batch) => Promise<Program>,
  window: Window,
  { state, clock }: { state: RunState; clock: { began: number; tokens: number } },
): Promise<{ state: RunState; event: TrainEvent }> {
  const { optimizer, totalSteps } = setup;
  const step = state.step + 1;
  const lossScale = setup.engine.lossScale ?? 1;
  const own = await runWindow(setup, program, window, { state, lossScale });
  const [loss = NaN] = (await setup.engine.sum?.([own.loss])) ?? [own.loss];
  if (!Number.isFinite(loss))
    await failOn(setup, state, `a finite loss, got ${loss} at step ${step}${own.broken}`);
  const learningRate = setup.learningRateAt(step);
  const update = { ...optimizer, step, learningRate, lossScale };
  const { gradNorm } = await (setup.apply ?? adamw)(setup.engine, update);
  if (!Number.isFinite(gradNorm) && lossScale === 1)
    await failOn(
      setup,
      state,
      `a finite norm of the gradients, got ${gradNorm} at step ${step}${rowsIn(window)}`,
    );
  const tokens = state.tokens + window.tokens;
  const { epoch, cursor } = window;
  const seconds = Math.max(1e-9, (setup.now() - clock.began) / 1000);
  const event: TrainEvent = {
    type: "step",
    step,
    totalSteps,
    epoch,
    loss,
    learningRate,
    gradNorm,
    tokens,
    tokensPerSecond: (tokens - clock.tokens) / seconds,
    memoryBytes: setup.memoryBytes(),
    ...(setup.unit && { unit: setup.unit }),
  };
  return {
    state: { ...state, step, tokens, epoch, lossSum: state.lossSum + loss, cursor },
    event,
  };
}

/** Evaluates, if there is something to evaluate on, and keeps the adapter when it is the best so far. */
async function evaluated(
  setup: TrainSetup,
  state: RunState,
): Promise<{ state: RunState; events: TrainEvent[] }> {
  if (!setup.evaluate) return { state, events: [] };
  const { step } = state;
  const loss = await setup.evaluate();
  const isBest = loss < (state.best?.loss ?? Infinity);
  const next = isBest
    ? { ...state, best: { step, loss }, evalsSinceBest: 0 }
    : { ...state, evalsSinceBest: state.evalsSinceBest + 1 };
  if (isBest) await setup.save(next, "best");
  return {
    state: next,
    events: [
      {
        ...{ type: "eval", step, loss, best: isBest },
        ...(!setup.unit && { perplexity: Math.exp(loss) }),
      },
    ],
  };
}

function endOf(
  state: RunState,
  { reason, seconds }: { reason: EndReason; seconds: number },
): TrainEvent {
  const { step, epoch, tokens, best, lossSum } = state;
  return {
    type: "end",
    reason,
    step,
    epoch,
    tokens,
    seconds,
    loss: lossSum / step,
    ...(best && { best }),
  };
}

/** Adds the gradients of all of `window` and returns its loss; `broken` names the first batch whose loss is no finite number. */
async function runWindow(
  setup: TrainSetup,
  program: (batch: Batch) => Promise<Program>,
  window: Window,
  { state, lossScale }: { state: RunState; lossScale: number },
): Promise<{ loss: number; broken: string }> {
  let [loss, broken] = [0, ""];
  for (const [index, batch] of window.batches.entries()) {
    const number = window.numbers?.[index] ?? index;
    const seed = hash32(hash32(setup.seed, state.step), number) >>> 1;
    const dropout_seed = tensor("i64", [], BigInt64Array.of(BigInt(seed)));
    const feeds = { ...scaled(batch, lossScale), dropout_seed };
    const outputs = await (await program(batch)).run(feeds);
    loss += Number(outputs["loss"]!.data[0]) / lossScale;
    if (Number.isFinite(loss)) continue;
    broken = `, micro-batch ${number + 1} of its window${rowsIn(window, [number])}`;
    break;
  }
  return { loss, broken };
}

/** `batch` with its loss weights, and so its gradients, `factor` times as large. */
function scaled(batch: Batch, factor: number): Batch {
  if (factor === 1) return batch;
  const weights = batch["loss_weights"]!;
  const data = Float32Array.from(weights.data as Float32Array, (weight) => weight * factor);
  return { ...batch, loss_weights: tensor("f32", weights.shape, data) };
}

const CHECKPOINTED: TrainEvent = {
  type: "warning",
  code: "checkpointing",
  message: "checkpointing is on: without it a step needs more memory than the GPU has free",
};
