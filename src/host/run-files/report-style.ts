/** The style sheet of the report: light and dark, readable on a phone and on paper. */
export const REPORT_STYLE: string = `
:root { color-scheme: light dark; --page: #f5f6f8; --surface: #ffffff; --ink: #1f2430; --quiet: #6b7280; --line: #e5e7eb; --good: #15803d; --accent: #2563eb; --tint: #eff4ff; --warn: #b45309; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0f1116; --surface: #171a21; --ink: #e8eaf0; --quiet: #9aa3b2; --line: #2b303b; --good: #4ade80; --accent: #7aa2ff; --tint: #1b2540; --warn: #fbbf24; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { margin: 0 0 4px; font-size: 28px; letter-spacing: -.01em; text-wrap: balance; }
h2 { margin: 40px 0 12px; font-size: 18px; }
.lead { margin: 0 0 24px; color: var(--quiet); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(116px, 1fr)); gap: 12px; margin-bottom: 16px; }
.tile, .card { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile dt { color: var(--quiet); font-size: 13px; }
.tile dd { margin: 2px 0 0; font-size: 18px; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile small { display: block; color: var(--quiet); font-size: 13px; font-weight: 400; white-space: normal; }
.tile .good { color: var(--good); }
dl { margin: 0; }
.card { overflow-x: auto; }
.card > svg { display: block; width: 100%; height: auto; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 10px 14px; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--quiet); font-size: 13px; font-weight: 600; }
.answers td { width: 37%; white-space: pre-wrap; overflow-wrap: anywhere; }
.answers td:first-child { width: 26%; font-weight: 600; }
.answers .base { color: var(--quiet); }
.answers .adapted { background: var(--tint); }
.pictures td { width: 140px; padding: 8px; }
.pictures tbody th { width: 220px; font-size: 13px; }
.pictures img, .strip img { display: block; width: 128px; height: auto; border-radius: 6px; image-rendering: auto; }
.strip { display: flex; flex-wrap: wrap; gap: 8px; padding: 12px; }
.strip img { width: 96px; }
.settings { columns: 2; column-gap: 32px; padding: 12px 16px; font-size: 13px; }
.settings div { display: flex; justify-content: space-between; gap: 12px; break-inside: avoid; padding: 2px 0; }
.settings dt { color: var(--quiet); }
.settings dd { margin: 0; text-align: right; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
.settings .changed dd { color: var(--accent); font-weight: 650; }
.warnings { margin: 0 0 16px; padding: 10px 16px 10px 32px; color: var(--warn); background: var(--surface); border: 1px solid var(--line); border-radius: 10px; }
footer { margin-top: 40px; color: var(--quiet); font-size: 13px; }
@media (max-width: 640px) {
  .settings { columns: 1; }
  .answers thead { display: none; }
  .answers tr { display: block; border-top: 1px solid var(--line); }
  .answers td, .answers td:first-child { display: block; width: auto; border: 0; }
}`;
