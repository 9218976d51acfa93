import type { TrainResult } from "./jobs.ts";

const [WIDTH, HEIGHT] = [720, 360];
const AREA = { left: 64, right: 560, top: 56, bottom: 296 };

/** Held-out loss of each rank, beside the base and full fine-tuning, as SVG. */
export function picture(title: string, results: readonly TrainResult[]): string {
  const ranks = results.filter(({ rank }) => rank !== "full");
  const full = results.find(({ rank }) => rank === "full");
  const start = results[0]!.evalLosses[0]!;
  const ends = results.map(({ evalLosses }) => evalLosses.at(-1)!);
  const [low, high] = [Math.min(...ends) - 0.05, start + 0.05];
  const y = (loss: number): number =>
    AREA.bottom - ((loss - low) / (high - low)) * (AREA.bottom - AREA.top);
  const step = (AREA.right - AREA.left) / ranks.length;
  const x = (i: number): number => AREA.left + step * (i + 0.5);
  const line = (loss: number, label: string, color: string): string =>
    `<line x1="${AREA.left}" x2="${AREA.right}" y1="${at(y(loss))}" y2="${at(y(loss))}" stroke="${color}" stroke-dasharray="6 4"/>
<text x="${AREA.right + 8}" y="${at(y(loss) + 4)}" fill="${color}">${label} ${loss.toFixed(2)}</text>`;
  const points = ranks.map(({ evalLosses }, i) => `${at(x(i))},${at(y(evalLosses.at(-1)!))}`);
  const marks = ranks.map(({ rank, evalLosses, trainable, total }, i) => {
    const loss = evalLosses.at(-1)!;
    const share = `${((100 * trainable) / total).toPrecision(2)} %`;
    return `<circle cx="${at(x(i))}" cy="${at(y(loss))}" r="5" fill="#0a7d5a"/>
<text x="${at(x(i))}" y="${at(y(loss) - 12)}" text-anchor="middle" fill="#0a7d5a">${loss.toFixed(2)}</text>
<text x="${at(x(i))}" y="${AREA.bottom + 20}" text-anchor="middle">${rank}</text>
<text x="${at(x(i))}" y="${AREA.bottom + 36}" text-anchor="middle" fill="#777">${share}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="${title}">
<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>
<text x="${AREA.left}" y="28" font-size="16" font-weight="600">${title}</text>
<line x1="${AREA.left}" x2="${AREA.right}" y1="${AREA.bottom}" y2="${AREA.bottom}" stroke="#999"/>
${line(start, "base", "#777")}
${full ? line(full.evalLosses.at(-1)!, "every weight", "#b4451f") : ""}
<polyline points="${points.join(" ")}" fill="none" stroke="#0a7d5a" stroke-width="2"/>
${marks.join("\n")}
<text x="${(AREA.left + AREA.right) / 2}" y="${AREA.bottom + 56}" text-anchor="middle">rank, and share of the weights that train</text>
</svg>
`;
}

function at(value: number): string {
  return value.toFixed(1);
}
