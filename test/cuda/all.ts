/** @file All GPU checks. */
import { checks as attention } from "./attention.ts";
import type { Check } from "./check.ts";
import { checks as commands } from "./commands.ts";
import { checks as communicator } from "./communicator.ts";
import { checks as curve } from "./curve.ts";
import { checks as decode } from "./decode.ts";
import { checks as fp8 } from "./fp8.ts";
import { checks as golden } from "./golden.ts";
import { checks as images } from "./images.ts";
import { checks as lifetime } from "./lifetime.ts";
import { checks as memory } from "./memory.ts";
import { checks as ops } from "./ops.ts";
import { checks as quantize } from "./quantize.ts";
import { checks as replay } from "./replay.ts";
import { checks as sanitize } from "./sanitize.ts";
import { checks as skinny } from "./skinny.ts";
import { checks as skinnyBoth } from "./skinny-both.ts";

export const allChecks: readonly Check[] = [
  ...attention,
  ...ops,
  ...quantize,
  ...fp8,
  ...skinny,
  ...skinnyBoth,
  ...decode,
  ...golden,
  ...images,
  ...replay,
  ...lifetime,
  ...communicator,
  ...commands,
  ...curve,
  ...memory,
  ...sanitize,
];
