import { z } from "zod";
import type { FieldInfo, FlagReading } from "./train-config.ts";

/** What fields expect, in words. */
export const COUNT = "a whole number of at least 1";
export const YES_NO = "true or false";
export const TEXTS = "a text or a list of texts";

export const count: z.ZodInt = z.int().min(1);

/** A function that makes fields of `group`: of a schema, what it expects in words, its meaning, how a flag is read. */
export function fieldsOf(
  group: FieldInfo["group"],
): <T extends z.ZodType>(
  schema: T,
  expects: string,
  description: string,
  reading?: FlagReading,
) => T {
  return (schema, expects, description, reading = "yaml") =>
    schema.meta({ group, expects, description, reading } satisfies FieldInfo);
}
