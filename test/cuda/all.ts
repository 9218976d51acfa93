/** @file All GPU checks. */
import { checks as attention } from "./attention.ts";
import type { Check } from "./check.ts";
import { checks as golden } from "./golden.ts";
import { checks as ops } from "./ops.ts";

export const allChecks: readonly Check[] = [...attention, ...ops, ...golden];
