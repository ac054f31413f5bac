/** A contact sheet of any length: only the frames near the window are in the document. */
import { Component, type ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

export interface Cell {
  key: string;
}

interface Props<C extends Cell> {
  cells: C[];
  label: string;
  /** The narrowest a frame may be, in CSS pixels. */
  least?: number;
  /** Called again for another cell only: an equal one is drawn as it was. */
  render(cell: C, isFocusable: boolean): ComponentChildren;
  onNearEnd?(): void;
}

const GAP = 12;
const EDGE = 20;
const MARGIN_ROWS = 3;

export function Grid<C extends Cell>({ cells, label, least = 150, render, onNearEnd }: Props<C>) {
  const list = useRef<HTMLUListElement>(null);
  const [width, setWidth] = useState(0);
  const [rows, setRows] = useState<[number, number]>([0, 6]);
  const [focused, setFocused] = useState(0);
  const columns = Math.max(2, Math.floor((width + GAP) / (least + GAP)));
  const side = width ? (width - GAP * (columns - 1)) / columns : least;
  const rowHeight = side + EDGE + GAP;
  const allRows = Math.ceil(cells.length / columns);

  useLayoutEffect(() => {
    const element = list.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    setWidth(element.clientWidth);
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    const element = list.current;
    if (!element || !width) return;
    element.style.height = `${Math.max(0, allRows * rowHeight - GAP)}px`;
    const look = () => {
      const top = -element.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(top / rowHeight) - MARGIN_ROWS);
      const last = Math.ceil((top + innerHeight) / rowHeight) + MARGIN_ROWS;
      setRows((before) => (before[0] === first && before[1] === last ? before : [first, last]));
      if (last >= allRows) onNearEnd?.();
    };
    look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => {
      removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, [width, allRows, rowHeight, onNearEnd]);

  const move = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -cells.length, End: cells.length };
    const step = steps[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = Math.min(cells.length - 1, Math.max(0, focused + step));
    event.preventDefault();
    setFocused(next);
    const top = (list.current?.getBoundingClientRect().top ?? 0) + Math.floor(next / columns) * rowHeight;
    if (top < 80) scrollBy({ top: top - 80 });
    else if (top + rowHeight > innerHeight) scrollBy({ top: top + rowHeight - innerHeight });
    requestAnimationFrame(() => requestAnimationFrame(() => list.current?.querySelector<HTMLElement>(`[data-index="${next}"] button`)?.focus()));
  };

  const from = rows[0] * columns;
  const seen = cells.slice(from, rows[1] * columns);
  return (
    <ul class="sheet" role="list" aria-label={label} ref={list} onKeyDown={move}>
      {seen.map((cell, offset) => {
        const index = from + offset;
        const isFocusable = index === Math.min(focused, cells.length - 1);
        return <Place key={cell.key} cell={cell} x={(index % columns) * (side + GAP)} y={Math.floor(index / columns) * rowHeight} side={side} index={index} total={cells.length} isFocusable={isFocusable} render={render} onFocus={setFocused} />;
      })}
    </ul>
  );
}

interface PlaceProps<C extends Cell> {
  cell: C;
  x: number;
  y: number;
  side: number;
  index: number;
  total: number;
  isFocusable: boolean;
  render(cell: C, isFocusable: boolean): ComponentChildren;
  onFocus(index: number): void;
}

type ItemProps = Pick<PlaceProps<Cell>, "x" | "y" | "side" | "index" | "total" | "onFocus"> & { children: ComponentChildren };

/** A frame at its place. While one scrolls only those that come into the document are drawn. */
class Place<C extends Cell> extends Component<PlaceProps<C>> {
  override shouldComponentUpdate(next: PlaceProps<C>) {
    const { cell, x, y, side, index, total, isFocusable } = this.props;
    return next.cell !== cell || next.x !== x || next.y !== y || next.side !== side || next.index !== index || next.total !== total || next.isFocusable !== isFocusable;
  }

  override render({ cell, isFocusable, render, ...place }: PlaceProps<C>) {
    return <Item {...place}>{render(cell, isFocusable)}</Item>;
  }
}

function Item({ x, y, side, index, total, onFocus, children }: ItemProps) {
  const item = useRef<HTMLLIElement>(null);
  useLayoutEffect(() => {
    const style = item.current?.style;
    style?.setProperty("transform", `translate(${x}px, ${y}px)`);
    style?.setProperty("width", `${side}px`);
    style?.setProperty("height", `${side + EDGE}px`);
  }, [x, y, side]);
  useEffect(() => item.current?.setAttribute("data-index", String(index)), [index]);
  return (
    <li ref={item} aria-setsize={total} aria-posinset={index + 1} onFocusIn={() => onFocus(index)}>
      {children}
    </li>
  );
}
