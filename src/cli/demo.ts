import { fileURLToPath } from "node:url";
import { Argument, type Command } from "commander";
import { readTrainConfig } from "../host/train-config-read.ts";
import type { CliContext } from "./context.ts";
import { runTraining } from "./train.ts";

const example = (name: string): string =>
  fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));

/** What is shown: an introduction, the settings of the run, and what to try then. */
interface Demo {
  readonly folder: string;
  readonly introduction: string;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly next: (folder: string) => string;
}

const SHARED = { r: 16, lora_alpha: 32, lr_scheduler_type: "cosine", warmup_ratio: 0.05 }; // prettier-ignore

const CHAT: Demo = {
  folder: "out/demo",
  introduction:
    "storyteller-6m, 6 million parameters, has read nothing but old English stories. It cannot chat.\n" +
    "A LoRA adapter now teaches it to be Pip, a rainbow lorikeet. The prompts below are not in its data.\n\n",
  settings: {
    ...SHARED,
    model: "storyteller-6m",
    data: example("lorikeet-chat.jsonl"),
    eval_data: example("lorikeet-chat.heldout.jsonl"),
    target_modules: "all-linear",
    max_length: 256,
    max_steps: 160,
    per_device_train_batch_size: 16,
    per_device_eval_batch_size: 16,
    learning_rate: 4e-3,
    eval_steps: 40,
    save_steps: 160,
    sample_prompts: [
      "Hello, little one!",
      "What do you like to drink?",
      "Where do you sleep at night?",
      "Do you fear the cat?",
      "Will you sing me a song?",
      "Could you tell me a story?",
      "Do you have any gold?",
    ],
  },
  next: (folder) => `npx lorikeet chat --adapter ${folder}`,
};

const IMAGE: Demo = {
  folder: "out/demo-image",
  introduction:
    "picturebook-7m, 7 million parameters, draws pages with one of twelve creatures. It never saw a lorikeet.\n" +
    "A LoRA adapter now learns what a pip bird is from 16 pages. The prompts are not among their captions.\n\n",
  settings: {
    ...SHARED,
    task: "text-to-image",
    data: example("lorikeet-pages/train"),
    eval_data: example("lorikeet-pages/heldout"),
    target_modules: ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"],
    train_text_encoder: true,
    random_flip: true,
    max_steps: 150,
    per_device_train_batch_size: 4,
    learning_rate: 1e-3,
    eval_steps: 75,
    save_steps: 150,
    sample_guidance: 3,
    sample_prompts: [
      "a pip bird with a yellow balloon on a green background",
      "a big pip bird on a blue background",
      "a pip bird with a blue scarf on an orange background",
      "a red fish on a blue background",
    ],
  },
  next: (folder) =>
    `npx lorikeet imagine --adapter ${folder} --guidance 3 --prompt "a pip bird with a red hat on a gray background" --out lorikeet.png`,
};

interface Flags {
  readonly outputDir?: string;
  readonly overwrite?: boolean;
}

/** `lorikeet demo`: teaches an embedded model something new, and shows the difference. */
export function register(command: Command, context: CliContext): void {
  const what = new Argument("[what]", "a model that chats, or one that draws");
  command
    .addArgument(what.choices(["chat", "image"]).default("chat"))
    .option(
      "-o, --output-dir <folder>",
      `folder for the results; default: ${CHAT.folder}, ${IMAGE.folder}`,
    )
    .option("--overwrite", "replace the run in that folder; in the default one, always")
    .addHelpText("after", "\nExamples:\n  lorikeet demo\n  lorikeet demo image")
    .action(async (chosen: "chat" | "image", { outputDir, overwrite }: Flags) => {
      const demo = chosen === "image" ? IMAGE : CHAT;
      const folder = outputDir ?? demo.folder;
      context.err.write(demo.introduction);
      const replaces = overwrite ?? outputDir === undefined; // a run of somebody's own is not the demo's to remove
      const flags = { ...demo.settings, output_dir: folder, overwrite: replaces };
      await runTraining(await readTrainConfig({ flags }), context);
      context.out.write(`\nTry it: ${demo.next(folder)}\n`);
    });
}
