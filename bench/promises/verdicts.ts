import { median, type Report, type TrainResult } from "./jobs.ts";

/** Which of LoRA's promises the numbers bear out, as a list; each line is decided by the numbers. */
export function verdicts(report: Report, results: readonly TrainResult[]): string {
  const full = results.find(({ rank }) => rank === "full");
  const small = results.find(({ rank }) => rank === 8) ?? results[0]!;
  const inference = report.inference[0];
  const lines = [
    ...(full ? [memory(small, full), time(small, full), quality(results, full)] : []),
    rankOne(results, full),
    ...(full ? [fileSize(small, full)] : []),
    ...(inference ? [mergedSpeed(inference), swapTime(inference)] : []),
  ];
  const isBusy = median(report.loads) > 4;
  const word = ({ holds, isTimed }: Verdict): string => {
    if (isTimed && isBusy) return "Not settled on so busy a machine";
    return holds ? "Holds" : "Does not hold";
  };
  return lines.map((line) => `- **${word(line)}**: ${line.text}`).join("\n");
}

interface Verdict {
  readonly holds: boolean;
  readonly text: string;
  /** It rests on times. */
  readonly isTimed?: boolean;
}

function memory(small: TrainResult, full: TrainResult): Verdict {
  const state = full.optimizerBytes / small.optimizerBytes;
  const peak = 1 - small.peakBytes / full.peakBytes;
  return {
    holds: peak > 0.05,
    text: `less memory. Rank ${small.rank} needs ${state.toFixed(0)} times less optimizer state; the peak of the process is ${(100 * Math.abs(peak)).toFixed(0)} % ${peak > 0 ? "lower" : "higher"}${peak > 0.05 ? "" : ": at this size activations and the runtime weigh more than the state of the optimizer"}.`,
  };
}

function time(small: TrainResult, full: TrainResult): Verdict {
  const share = median(small.stepSeconds) / median(full.stepSeconds);
  return {
    isTimed: true,
    holds: share < 0.95,
    text: `faster steps. A step of rank ${small.rank} takes ${share.toFixed(2)} times as long as one of full fine-tuning: gradients of the weights are saved, but the forward pass and the gradients of the activations are not, and the adapter's own products come on top.`,
  };
}

function quality(results: readonly TrainResult[], full: TrainResult): Verdict {
  const ranks = results.filter(({ rank }) => rank !== "full");
  const best = ranks.reduce((a, b) => (lossOf(b) < lossOf(a) ? b : a));
  const gap = lossOf(best) - lossOf(full);
  return {
    holds: gap < 0.05,
    text: `as good as full fine-tuning at equal steps. The best rank, ${best.rank}, ends at ${lossOf(best).toFixed(3)}, full fine-tuning at ${lossOf(full).toFixed(3)}.`,
  };
}

function rankOne(results: readonly TrainResult[], full: TrainResult | undefined): Verdict {
  const one = results.find(({ rank }) => rank === 1) ?? results[0]!;
  const before = one.evalLosses[0]!;
  const best = full ?? results.reduce((a, b) => (lossOf(b) < lossOf(a) ? b : a));
  const share = (before - lossOf(one)) / (before - lossOf(best));
  return {
    holds: share > 0.8,
    text: `a very low rank is enough. Rank ${one.rank} gives ${(100 * share).toFixed(0)} % of what ${full ? "full fine-tuning" : `rank ${best.rank}`} gains, with ${((100 * one.trainable) / one.total).toPrecision(2)} % of the weights.`,
  };
}

function fileSize(small: TrainResult, full: TrainResult): Verdict {
  const times = full.fileBytes / small.fileBytes;
  return {
    holds: times > 5,
    text: `small files. The adapter of rank ${small.rank} is ${times.toFixed(0)} times smaller than all weights in the same precision.`,
  };
}

function mergedSpeed({ rank, tokensPerSecond }: Report["inference"][number]): Verdict {
  const ratio = (values: readonly number[]): number => median(values.map((value, i) => value / tokensPerSecond.base[i]!)); // prettier-ignore
  const [merged, adapter] = [ratio(tokensPerSecond.merged), ratio(tokensPerSecond.adapter)];
  return {
    isTimed: true,
    holds: merged > 0.98,
    text: `no cost after merging. The merged model generates at ${merged.toFixed(2)} of the base's speed; with the adapter of rank ${rank} beside it, ${adapter.toFixed(2)}.`,
  };
}

function swapTime({ swapMs }: Report["inference"][number]): Verdict {
  const ms = median(swapMs);
  return { holds: ms <= 10, text: `adapters are swapped in no time. ${ms.toFixed(1)} ms in the median, without compiling anything.` }; // prettier-ignore
}

function lossOf({ evalLosses }: TrainResult): number {
  return evalLosses.at(-1)!;
}
