/** A list of pictures that grows at both ends: older ones page by page, new ones as they are made. */
import { signal } from "@preact/signals";
import { read } from "../api/http";
import type { Picture } from "../api/types";

const PAGE = 60;

interface Page {
  images: Picture[];
  next_cursor: string | null;
}

export const jobOf = (imageId: string) => `job_${imageId.slice(4).split("-")[0]}`;
const indexOf = (imageId: string) => Number(imageId.split("-")[1]);

/** Newest job first, its pictures in their order: as the service lists them. */
export function inOrder(one: string, other: string): number {
  const [a, b] = [jobOf(one), jobOf(other)];
  return a === b ? indexOf(one) - indexOf(other) : a < b ? 1 : -1;
}

export class Gallery {
  readonly pictures = signal<Picture[]>([]);
  readonly state = signal<"loading" | "more" | "all">("loading");
  private cursor: string | null = "";
  private isReading = false;

  constructor(readonly filter: { subject_id?: string; prompt?: string }) {}

  /** The next page. */
  async more(): Promise<void> {
    if (this.isReading || this.cursor === null) return;
    this.isReading = true;
    try {
      do {
        const page: Page = await this.page({ cursor: this.cursor });
        this.merge(page.images);
        this.cursor = page.next_cursor;
        this.state.value = this.cursor === null ? "all" : "more";
        if (page.images.length) break;
      } while (this.cursor !== null);
    } finally {
      this.isReading = false;
    }
  }

  /** What is new since. */
  async refresh(): Promise<void> {
    this.merge((await this.page({})).images);
  }

  /** The pictures of a job that has ended. */
  async add(jobId: string): Promise<void> {
    this.merge((await this.page({ job_id: jobId })).images);
  }

  without(subjectId: string) {
    this.pictures.value = this.pictures.value.filter((each) => !each.subject_ids.includes(subjectId));
  }

  private page(params: Record<string, string | null>): Promise<Page> {
    const all = Object.entries({ limit: String(PAGE), ...this.filter, ...params }).filter((each): each is [string, string] => !!each[1]);
    return read<Page>(`/v1/images?${new URLSearchParams(all)}`);
  }

  private merge(found: Picture[]) {
    const before = this.pictures.value;
    const known = new Set(before.map((each) => each.id));
    const added = found.filter((each) => !known.has(each.id));
    if (!added.length) return;
    const [last, next] = [before.at(-1), added[0]!];
    const follows = !last || inOrder(last.id, next.id) < 0;  // the next page: it is in order as it is
    this.pictures.value = follows ? [...before, ...added] : [...before, ...added].sort((one, other) => inOrder(one.id, other.id));
  }
}
