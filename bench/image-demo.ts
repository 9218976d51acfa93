/**
 * @file Draws docs/text-to-image.png from what `npm run demo:image` left in out/demo-image: a row of pages that were
 * trained on, then a column for each sample prompt, the base above, the adapter below; and prints the losses.
 */
import { readdir } from "node:fs/promises";
import sharp from "sharp";
import { readMetrics } from "../src/host/run-files/metrics.ts";

const RUN = "out/demo-image";
const PAGES = "examples/lorikeet-pages/train";
const [SIDE, GAP] = [128, 6];

const events = await readMetrics(`${RUN}/metrics.jsonl`);
for (const event of events) if (event.type === "eval") console.log(event.step, event.loss);
const images = events.filter((event) => event.type === "image");
const steps = [...new Set(images.map(({ step }) => step))];
const pages = (await readdir(PAGES)).filter((name) => name.endsWith(".png"));
const columns = images.length / steps.length;
const rows = [
  pages.slice(0, columns).map((name) => `${PAGES}/${name}`),
  ...steps.map((of) => images.filter(({ step }) => step === of).map(({ path }) => path)),
];
const place = (index: number): number => GAP + index * (SIDE + GAP);
const cells = rows.flatMap((paths, row) =>
  paths.map(async (path, column) => {
    const input = await sharp(path).resize(SIDE, SIDE).toBuffer();
    return { input, left: place(column), top: place(row) };
  }),
);
await sharp({
  create: { width: place(columns), height: place(rows.length), channels: 3, background: "white" },
})
  .composite(await Promise.all(cells))
  .png({ palette: true })
  .toFile("docs/text-to-image.png");
