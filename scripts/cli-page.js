import { Writable } from "node:stream";
import "./typescript.js";

const { runCommandLine } = await import("../src/cli/command-line.ts");
const { COMMANDS } = await import("../src/cli/commands.ts");

/** docs/cli.md: what holds for every command, then each command's own help. */
export async function cliPage() {
  const sections = [];
  for (const { name } of COMMANDS) {
    sections.push(`## lorikeet ${name}\n\n\`\`\`text\n${await helpOf(name)}\n\`\`\`\n`);
    for (const nested of await nestedCommands(name))
      sections.push(`### lorikeet ${nested}\n\n\`\`\`text\n${await helpOf(nested)}\n\`\`\`\n`);
  }
  return `<!-- Written by scripts/generate-docs.js from the commands' own --help. -->

# The command line

\`\`\`text
${await helpOf()}
\`\`\`

- Results go to standard output, progress, warnings and errors to standard error.
- \`--json\` makes a command's result readable for scripts; an error is then one line of JSON on standard error:
  \`{"error": {"code": "…", "message": "…", "hint": "…"}}\`.
- An error is shown as code, message and hint; \`--debug\` adds where it comes from. Codes: [errors.md](errors.md).
- Option names may be written with dashes or underscores: \`--learning-rate\` is \`--learning_rate\`.
- Unknown commands and options are refused with the nearest name.
- The progress bar appears on terminals only, colours there and in CI logs; \`NO_COLOR=1\` turns colours off.

| exit status | meaning |
| --- | --- |
| 0 | done |
| 1 | the command could not do what it was asked for |
| 2 | the command line or the settings were not understood; nothing was done |
| 130 | interrupted by Ctrl-C or SIGTERM; what was reached is saved, \`--resume\` goes on from it |

A second Ctrl-C ends at once, without saving.

${sections.join("\n")}`;
}

/** Names of the commands inside the command \`name\`, such as "data preview". */
async function nestedCommands(name) {
  const list = /\nCommands:\n([^]*?)(\n\n|$)/.exec(await helpOf(name))?.[1] ?? "";
  return [...list.matchAll(/^ {2}([a-z-]+)/gm)]
    .map((match) => match[1])
    .filter((nested) => nested !== "help")
    .map((nested) => `${name} ${nested}`);
}

async function helpOf(command = "") {
  let text = "";
  const out = new Writable({
    write(chunk, _encoding, done) {
      text += chunk;
      done();
    },
  });
  await runCommandLine([...command.split(" ").filter(Boolean), "--help"], { out, err: out });
  return text.trim();
}
