/** The loaded model's styles and words as cards. */
import { computed } from "@preact/signals";
import { model } from "./store";

export const styleCards = computed(() => model.value?.styles ?? []);
export const attributes = computed(() => model.value?.attributes ?? []);
