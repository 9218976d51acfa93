import { MultiBar } from "cli-progress";
import pc from "picocolors";
import { formatBytes, formatDuration } from "../host/run-files/run-numbers.ts";
import type { EvalEvent, StepEvent, TrainEvent } from "../train/events.ts";

/** Shows the events of a run to a person. */
export interface Progress {
  show(event: TrainEvent): void;
  /** Takes the bar away; the lines stay. */
  stop(): void;
}

/** Lines of steps that a run prints where there is no terminal. */
const PLAIN_LINES = 20;

/** A bar that moves on a terminal; elsewhere about twenty lines. Evaluations and warnings are lines of their own. */
export function showProgress(stream: NodeJS.WritableStream & { isTTY?: boolean }): Progress {
  return stream.isTTY ? barProgress(stream) : plainProgress(stream);
}

function plainProgress(stream: NodeJS.WritableStream): Progress {
  const remaining = remainingTime();
  return {
    show(event) {
      if (event.type === "step") {
        const left = remaining(event);
        if (isShown(event)) stream.write(`${stepLine(event, left)}\n`);
      } else writeLine(event, (line) => stream.write(line));
    },
    stop: () => undefined,
  };
}

function isShown({ step, totalSteps }: StepEvent): boolean {
  return step === 1 || step === totalSteps || step % Math.ceil(totalSteps / PLAIN_LINES) === 0;
}

function barProgress(stream: NodeJS.WritableStream): Progress {
  const remaining = remainingTime();
  const bars = new MultiBar({
    stream,
    format: "{bar} {numbers}",
    barsize: 14,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    hideCursor: true,
    linewrap: false,
    gracefulExit: false, // Ctrl-C saves first
    emptyOnZero: true,
    autopadding: false,
  });
  let bar: ReturnType<MultiBar["create"]> | undefined;
  return {
    show(event) {
      if (event.type === "step") {
        const numbers = stepLine(event, remaining(event));
        bar ??= bars.create(event.totalSteps, 0, { numbers });
        bar.update(event.step, { numbers });
      } else writeLine(event, bar ? (line) => bars.log(line) : (line) => stream.write(line));
    },
    stop() {
      bars.update();
      bars.stop();
    },
  };
}

function stepLine(event: StepEvent, secondsLeft: number | undefined): string {
  const { step, totalSteps, loss, learningRate, memoryBytes } = event;
  return [
    `${step}/${totalSteps}`,
    `loss ${loss.toFixed(3)}`,
    `lr ${learningRate.toExponential(1)}`,
    rateOf(event),
    formatBytes(memoryBytes),
    ...(secondsLeft === undefined ? [] : [`${formatDuration(secondsLeft)} left`]),
  ].join("  ");
}

function rateOf({ unit, tokensPerSecond: rate }: StepEvent): string {
  if (unit !== "images") return `${Math.round(rate)} tok/s`;
  return `${rate.toFixed(rate < 10 ? 1 : 0)} images/s`;
}

/** Seconds to the end at the pace since the first step seen, which is left out: it includes compiling. */
function remainingTime(): (event: StepEvent) => number | undefined {
  let first: { step: number; time: number } | undefined;
  return ({ step, totalSteps }) => {
    const time = performance.now() / 1000;
    first ??= { step, time };
    if (step === first.step) return undefined;
    return ((time - first.time) / (step - first.step)) * (totalSteps - step);
  };
}

function writeLine(event: TrainEvent, write: (line: string) => void): void {
  if (event.type === "eval") write(`${evalLine(event)}\n`);
  else if (event.type === "warning")
    write(`${pc.yellow(`warning[${event.code}]`)}: ${event.message}\n`);
  else if (event.type === "checkpoint" || event.type === "image")
    write(pc.dim(`saved ${event.path}\n`));
}

function evalLine({ step, loss, perplexity, best }: EvalEvent): string {
  const note = best && step > 0 ? pc.green("  best so far") : "";
  const words = perplexity === undefined ? "" : `  perplexity ${perplexity.toFixed(1)}`;
  return `step ${step}  evaluation loss ${loss.toFixed(3)}${words}${note}`;
}
