import type { TrainEvent } from "../../train/events.ts";
import type { TrainConfig } from "../train-config.ts";
import { fieldDefault, TRAIN_KEYS } from "../train-fields.ts";
import { escapeHtml } from "./html.ts";
import { lossCurve } from "./loss-curve.ts";
import { type RunNumber, runNumbers } from "./run-numbers.ts";
import { REPORT_STYLE } from "./report-style.ts";

/** What the base and the adapted model say to one prompt. */
export interface AnswerPair {
  readonly prompt: string;
  readonly base: string;
  readonly adapted: string;
}

/** An image in the report; all of one column were made after the same number of steps. */
export interface ReportPicture {
  readonly prompt: string;
  readonly step: number;
  /** A `data:` URL. */
  readonly url: string;
}

/** What a report is made from. */
export interface RunReport {
  readonly title: string;
  readonly config: TrainConfig;
  readonly events: readonly TrainEvent[];
  readonly answers: readonly AnswerPair[];
  /** Images that were made while training went on. */
  readonly pictures?: readonly ReportPicture[];
  /** Some of the images that were trained on, as `data:` URLs. */
  readonly trainedOn?: readonly string[];
  /** Numbers that the events do not hold, such as the trained parameters. */
  readonly numbers?: readonly RunNumber[];
  readonly version: string;
}

/** The report as one HTML page that needs no other file and no network. */
export function renderReport(report: RunReport): string {
  const { title, config, events } = report;
  const numbers = [...runNumbers(events), ...(report.numbers ?? [])];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${REPORT_STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
<p class="lead">${escapeHtml(config.model)} with a rank-${config.r} LoRA, trained on ${escapeHtml(config.data.join(", "))}</p>
<dl class="tiles">${numbers.map(tile).join("")}</dl>
${warnings(events)}<div class="card">${lossCurve(events, "Loss")}</div>
${answersTable(report.answers)}${pictureTable(report)}
<h2>Settings</h2>
<dl class="card settings">${TRAIN_KEYS.map((key) => setting(key, config)).join("")}</dl>
<footer>Written by Lorikeet ${escapeHtml(report.version)}. Settings in colour differ from their default.</footer>
</main>
</body>
</html>
`;
}

function tile({ label, value, note, isGood }: RunNumber): string {
  const small =
    note === undefined ? "" : `<small${isGood ? ' class="good"' : ""}>${escapeHtml(note)}</small>`;
  return `<div class="tile"><dt>${escapeHtml(label)}</dt><dd>${escapeHtml(value)}${small}</dd></div>`;
}

function warnings(events: readonly TrainEvent[]): string {
  const items = events
    .filter((event) => event.type === "warning")
    .map(({ message }) => `<li>${escapeHtml(message)}</li>`);
  return items.length === 0 ? "" : `<ul class="warnings">${items.join("")}</ul>\n`;
}

function answersTable(answers: readonly AnswerPair[]): string {
  if (answers.length === 0) return "";
  const rows = answers.map(
    ({ prompt, base, adapted }) =>
      `<tr><td>${escapeHtml(prompt)}</td><td class="base">${escapeHtml(base.trim())}</td><td class="adapted">${escapeHtml(adapted.trim())}</td></tr>`,
  );
  return `<h2>Answers before and after</h2>
<div class="card"><table class="answers">
<thead><tr><th>Prompt</th><th>Base model</th><th>With the adapter</th></tr></thead>
<tbody>${rows.join("\n")}</tbody>
</table></div>`;
}

function pictureTable({ pictures: made = [], trainedOn = [] }: RunReport): string {
  const image = (url: string, alt: string): string => `<img src="${url}" alt="${escapeHtml(alt)}">`;
  const examples = trainedOn.map((url) => image(url, "training image")).join("");
  const strip =
    examples === "" ? "" : `<h2>Trained on</h2>\n<div class="card strip">${examples}</div>\n`;
  if (made.length === 0) return strip;
  const steps = [...new Set(made.map(({ step }) => step))].sort((a, b) => a - b);
  const heads = steps.map((step) => `<th>${step === 0 ? "Base model" : `Step ${step}`}</th>`);
  const rows = [...new Set(made.map(({ prompt }) => prompt))].map((prompt) => {
    const cells = steps.map((step) => {
      const found = made.find((picture) => picture.prompt === prompt && picture.step === step);
      return `<td>${found ? image(found.url, `${prompt}, step ${step}`) : ""}</td>`;
    });
    return `<tr><th>${escapeHtml(prompt)}</th>${cells.join("")}</tr>`;
  });
  return `${strip}<h2>Images before and after</h2>
<div class="card"><table class="pictures">
<thead><tr><th>Prompt</th>${heads.join("")}</tr></thead>
<tbody>${rows.join("\n")}</tbody>
</table></div>`;
}

function setting(key: keyof TrainConfig, config: TrainConfig): string {
  const value = config[key];
  const changed = JSON.stringify(value) !== JSON.stringify(fieldDefault(key));
  return `<div${changed ? ' class="changed"' : ""}><dt>${key}</dt><dd>${escapeHtml(shown(value))}</dd></div>`;
}

function shown(value: TrainConfig[keyof TrainConfig]): string {
  if (value === null) return "unset";
  if (Array.isArray(value)) return value.length === 0 ? "unset" : value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}
