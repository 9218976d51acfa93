import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { readTrainConfig } from "../host/train-config-read.ts";
import type { CliContext } from "./context.ts";
import { runTraining } from "./train.ts";

/** Held-out prompts that the demo shows before and after. */
const PROMPTS = [
  "Hello, little one!",
  "Do you love the summer sun?",
  "Could you tell me a story?",
  "How do I find courage?",
  "Do you fear the cat?",
  "Will you tell me your dream?",
];

/** `lorikeet demo`: teaches the embedded model to answer like a parrot, and shows the difference. */
export function register(command: Command, context: CliContext): void {
  command
    .option("-o, --output-dir <folder>", "folder for the adapter and the report", "out/demo")
    .addHelpText("after", "\nExample:\n  lorikeet demo")
    .action(async ({ outputDir }: { outputDir: string }) => {
      context.err.write(
        "Teaching storyteller-6m, a small model of old novels that cannot chat, to answer as a lorikeet.\n",
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
          num_train_epochs: 3,
          per_device_train_batch_size: 16,
          per_device_eval_batch_size: 16,
          learning_rate: 5e-3,
          lr_scheduler_type: "cosine",
          warmup_ratio: 0.05,
          sample_prompts: PROMPTS,
        },
      });
      await runTraining(config, context);
      context.out.write(`\nTry it: npx lorikeet chat --adapter ${outputDir}\n`);
    });
}
