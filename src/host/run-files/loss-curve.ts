import { scaleLinear } from "d3-scale";
import { line } from "d3-shape";
import type { EvalEvent, StepEvent, TrainEvent } from "../../train/events.ts";
import { escapeHtml } from "./html.ts";

const WIDTH = 860;
const HEIGHT = 360;
const MARGIN = { top: 48, right: 96, bottom: 48, left: 60 };

interface Point {
  readonly step: number;
  readonly loss: number;
}

const LIGHT = { surface: "#ffffff", ink: "#1f2430", quiet: "#6b7280", grid: "#e5e7eb", train: "#2563eb", eval: "#d9480f" }; // prettier-ignore
const DARK = { surface: "#171a21", ink: "#e8eaf0", quiet: "#9aa3b2", grid: "#2b303b", train: "#7aa2ff", eval: "#ff9a5c" }; // prettier-ignore

/** Colours are written out: viewers without CSS variables would paint them all black. */
function coloured({ surface, ink, quiet, grid, train, eval: evaluation }: typeof LIGHT): string {
  return `.curve .surface { fill: ${surface}; }
.curve text { fill: ${quiet}; }
.curve .title { fill: ${ink}; }
.curve .grid { stroke: ${grid}; }
.curve .raw, .curve .train { stroke: ${train}; }
.curve .eval { stroke: ${evaluation}; }
.curve circle { fill: ${evaluation}; stroke: ${surface}; }
.curve .train-label { fill: ${train}; }
.curve .eval-label { fill: ${evaluation}; }`;
}

const STYLE = `
.curve text { font: 12px system-ui, sans-serif; }
.curve .title { font-size: 15px; font-weight: 600; }
.curve path { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.curve .raw { stroke-width: 1; stroke-opacity: .28; }
.curve circle { stroke-width: 1.5; }
.curve .train-label, .curve .eval-label { font-weight: 600; }
${coloured(LIGHT)}
@media (prefers-color-scheme: dark) {
${coloured(DARK)}
}`;

/**
 * The training and evaluation loss (nats a token) of `events` over steps, as a stand-alone SVG that follows the
 * reader's light or dark theme. The bold training line is the mean of the steps around each.
 */
export function lossCurve(events: readonly TrainEvent[], title: string): string {
  const steps = pointsOf(events, "step");
  const evals = pointsOf(events, "eval");
  const { x, y } = scales([...steps, ...evals]);
  const path = line<Point>(
    ({ step }) => x(step),
    ({ loss }) => y(loss),
  ).digits(1);
  const smooth = smoothed(steps);
  return `<svg xmlns="http://www.w3.org/2000/svg" class="curve" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}">
<style>${STYLE}</style>
<rect width="100%" height="100%" rx="10" class="surface"/>
<text class="title" x="${MARGIN.left}" y="26">${escapeHtml(title)}</text>
${axes(x, y)}
<path class="raw" d="${path(steps) ?? ""}"/>
<path class="train" d="${path(smooth) ?? ""}"/>
<path class="eval" d="${path(evals) ?? ""}"/>
${evals.map(({ step, loss }) => `<circle cx="${x(step).toFixed(1)}" cy="${y(loss).toFixed(1)}" r="4"/>`).join("")}
${endLabels(smooth.at(-1), evals.at(-1), x, y)}
</svg>
`;
}

function pointsOf(events: readonly TrainEvent[], type: "step" | "eval"): Point[] {
  return events
    .filter((event): event is StepEvent | EvalEvent => event.type === type)
    .filter(({ loss }) => Number.isFinite(loss));
}

type Scale = ReturnType<typeof scaleLinear<number, number>>;

function scales(points: readonly Point[]): { x: Scale; y: Scale } {
  const last = points.reduce((max, { step }) => Math.max(max, step), 1);
  const highest = points.reduce((max, { loss }) => Math.max(max, loss), 0) || 1;
  return {
    x: scaleLinear([0, last], [MARGIN.left, WIDTH - MARGIN.right]),
    y: scaleLinear([0, highest], [HEIGHT - MARGIN.bottom, MARGIN.top]).nice(5),
  };
}

function axes(x: Scale, y: Scale): string {
  const right = WIDTH - MARGIN.right;
  const bottom = HEIGHT - MARGIN.bottom;
  const levels = y.ticks(5).map((tick) => {
    const at = y(tick).toFixed(1);
    return `<line class="grid" x1="${MARGIN.left}" x2="${right}" y1="${at}" y2="${at}"/><text x="${MARGIN.left - 8}" y="${at}" dy="4" text-anchor="end">${tick}</text>`;
  });
  const steps = x
    .ticks(8)
    .filter(Number.isInteger)
    .map(
      (tick) =>
        `<text x="${x(tick).toFixed(1)}" y="${bottom + 20}" text-anchor="middle">${tick}</text>`,
    );
  const names = `<text x="${(MARGIN.left + right) / 2}" y="${HEIGHT - 8}" text-anchor="middle">step</text><text transform="translate(16 ${(MARGIN.top + bottom) / 2}) rotate(-90)" text-anchor="middle">loss</text>`;
  return [...levels, ...steps, names].join("\n");
}

/** Means over a window that grows with the run: a twentieth of it to each side. */
function smoothed(points: readonly Point[]): Point[] {
  const reach = Math.floor(points.length / 20);
  return points.map(({ step }, i) => {
    const side = Math.min(reach, i, points.length - 1 - i);
    const window = points.slice(i - side, i + side + 1);
    return { step, loss: window.reduce((sum, { loss }) => sum + loss, 0) / window.length };
  });
}

/** The last values beside their lines, moved apart when they would overlap. */
function endLabels(
  train: Point | undefined,
  evaluation: Point | undefined,
  x: Scale,
  y: Scale,
): string {
  const labels = [
    { name: "train", point: train },
    { name: "eval", point: evaluation },
  ].flatMap(({ name, point }) => (point ? [{ name, point, at: y(point.loss) }] : []));
  labels.sort((a, b) => a.at - b.at);
  const [upper, lower] = labels;
  const overlap = upper && lower ? Math.max(0, 16 - (lower.at - upper.at)) : 0;
  if (upper) upper.at -= overlap / 2;
  if (lower) lower.at += overlap / 2;
  return labels
    .map(
      ({ name, point, at }) =>
        `<text class="${name}-label" x="${(x(point.step) + 9).toFixed(1)}" y="${at.toFixed(1)}" dy="4">${name} ${point.loss.toFixed(2)}</text>`,
    )
    .join("\n");
}
