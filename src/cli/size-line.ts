import type { RunSize } from "../api/run-size.ts";

/** A run's size on one line: what it reads, what it trains, how often. */
export function sizeLine(size: RunSize): string {
  const { data, unit, trainableParameters, parameters, totalSteps } = size;
  const share = Number(((100 * trainableParameters) / parameters).toPrecision(3));
  return [
    `${count(data.samples)} ${unit}`,
    ...(data.tokens === undefined
      ? []
      : [`${count(data.supervisedTokens ?? 0)} of ${count(data.tokens)} tokens supervised`]),
    `${count(trainableParameters)} trainable parameters (${share} %)`,
    `${count(totalSteps)} steps`,
  ].join(", ");
}

function count(value: number): string {
  return value.toLocaleString("en");
}
