// Terminal output as styled text. Of the escape sequences only colours and styles (SGR) have an effect; all others are left out, and
// nothing in a line can become markup: the result is text and the names of styles.

/** Style is what SGR sequences have set. Colours are an index into the 256 of terminals, or #rrggbb. */
export interface Style {
  fg?: number | string;
  bg?: number | string;
  bold?: boolean;
  dim?: boolean;
  italic?: boolean;
  underline?: boolean;
  strike?: boolean;
  inverse?: boolean;
}

export interface Span {
  text: string;
  style: Style;
}

// CSI sequences; OSC, DCS, SOS, PM and APC strings, ended or not; and escapes of two or three characters.
const escapes =
  /\x1b(?:\[([0-?]*)[ -/]*([@-~]?)|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|[ -/]*[0-~]?)/g;

/** parse cuts a line into spans. The style that holds at the end of a line holds at the begin of the next. */
export function parse(line: string, style: Style): { spans: Span[]; style: Style } {
  const text = lastOverwrite(line);
  if (!text.includes("\x1b")) return { spans: text ? [{ text: visible(text), style }] : [], style };
  const spans: Span[] = [];
  const push = (s: string) => {
    if (s) spans.push({ text: visible(s), style });
  };
  let at = 0;
  for (const match of text.matchAll(escapes)) {
    push(text.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[2] === "m") style = apply(match[1] ?? "", style);
  }
  push(text.slice(at));
  return { spans, style };
}

/** plain is the text of a line without styles. */
export const plain = (line: string) =>
  parse(line, {})
    .spans.map((s) => s.text)
    .join("");

// A carriage return within a line goes back to its begin: what is seen in the end is what was written last. Styles set before stay.
function lastOverwrite(line: string): string {
  const end = line.replace(/\r+$/, "");
  const back = end.lastIndexOf("\r");
  if (back < 0) return end;
  const styles = end.slice(0, back).match(/\x1b\[[\d;:]*m/g);
  return (styles?.join("") ?? "") + end.slice(back + 1);
}

// Control characters are shown as their pictures, so that they neither vanish nor act.
const visible = (s: string) =>
  s.replace(/[\x00-\x08\x0a-\x1f\x7f]/g, (c) => (c === "\x7f" ? "\u2421" : String.fromCharCode(0x2400 + c.charCodeAt(0))));

function apply(parameters: string, before: Style): Style {
  if (/[<=>?]/.test(parameters)) return before;
  const codes = parameters.split(/[;:]/).map((p) => (p === "" ? 0 : Number(p)));
  const style: Style = { ...before };
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i]!;
    switch (code) {
      case 0:
        for (const key of Object.keys(style) as (keyof Style)[]) delete style[key];
        break;
      case 1: style.bold = true; break;
      case 2: style.dim = true; break;
      case 3: style.italic = true; break;
      case 4: style.underline = true; break;
      case 7: style.inverse = true; break;
      case 9: style.strike = true; break;
      case 21: style.underline = true; break;
      case 22: delete style.bold; delete style.dim; break;
      case 23: delete style.italic; break;
      case 24: delete style.underline; break;
      case 27: delete style.inverse; break;
      case 29: delete style.strike; break;
      case 38:
      case 48: {
        const [colour, used] = extended(codes.slice(i + 1));
        i += used;
        if (colour !== undefined) style[code === 38 ? "fg" : "bg"] = colour;
        break;
      }
      case 39: delete style.fg; break;
      case 49: delete style.bg; break;
      default:
        if (code >= 30 && code <= 37) style.fg = code - 30;
        else if (code >= 90 && code <= 97) style.fg = code - 90 + 8;
        else if (code >= 40 && code <= 47) style.bg = code - 40;
        else if (code >= 100 && code <= 107) style.bg = code - 100 + 8;
    }
  }
  return style;
}

const isByte = (n: number | undefined): n is number => n !== undefined && Number.isInteger(n) && n >= 0 && n <= 255;

/** extended reads 5;n or 2;r;g;b and says how many codes that took. */
function extended(codes: number[]): [colour: number | string | undefined, used: number] {
  if (codes[0] === 5) return [isByte(codes[1]) ? palette(codes[1]) : undefined, 2];
  if (codes[0] !== 2) return [undefined, 1];
  const rgb = codes.slice(1, 4);
  return [rgb.length === 3 && rgb.every(isByte) ? hex(rgb) : undefined, 4];
}

// The first 16 colours of the palette are the theme's, the others are fixed.
function palette(n: number): number | string {
  if (n < 16) return n;
  if (n >= 232) return hex([8, 8, 8].map((base) => base + (n - 232) * 10));
  const level = (v: number) => (v === 0 ? 0 : 55 + v * 40);
  return hex([Math.floor((n - 16) / 36), Math.floor((n - 16) / 6) % 6, (n - 16) % 6].map(level));
}

const hex = (rgb: number[]) => "#" + rgb.map((v) => v.toString(16).padStart(2, "0")).join("");
