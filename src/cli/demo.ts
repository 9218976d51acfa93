import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { readTrainConfig } from "../host/train-config-read.ts";
import type { CliContext } from "./context.ts";
import { runTraining } from "./train.ts";

/** Held-out prompts that the demo shows before and after. */
const PROMPTS = [
  "Hello, little one!",
  "What do you like to drink?",
  "Where do you sleep at night?",
  "Do you fear the cat?",
  "Will you sing me a song?",
  "Could you tell me a story?",
  "Do you have any gold?",
];

/** `lorikeet demo`: teaches the embedded model to answer like a parrot, and shows the difference. */
export function register(command: Command, context: CliContext): void {
  command
    .option("-o, --output-dir <folder>", "folder for the adapter and the report", "out/demo")
    .addHelpText("after", "\nExample:\n  lorikeet demo")
    .action(async ({ outputDir }: { outputDir: string }) => {
      context.err.write(
        "storyteller-6m, 6 million parameters, has read nothing but old English stories. It cannot chat.\n" +
          "A LoRA adapter now teaches it to be Pip, a rainbow lorikeet. The prompts below are not in its data.\n\n",
      );
      const example = (name: string): string =>
        fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));
      const config = await readTrainConfig({
        flags: {
          model: "storyteller-6m",
          data: example("lorikeet-chat.jsonl"),
          eval_data: example("lorikeet-chat.heldout.jsonl"),
          output_dir: outputDir,
          overwrite: true,
          r: 16,
          lora_alpha: 32,
          target_modules: "all-linear",
          max_length: 256,
          max_steps: 160,
          per_device_train_batch_size: 16,
          per_device_eval_batch_size: 16,
          learning_rate: 4e-3,
          lr_scheduler_type: "cosine",
          warmup_ratio: 0.05,
          eval_steps: 40,
          save_steps: 160,
          sample_prompts: PROMPTS,
        },
      });
      await runTraining(config, context);
      context.out.write(`\nTry it: npx lorikeet chat --adapter ${outputDir}\n`);
    });
}
