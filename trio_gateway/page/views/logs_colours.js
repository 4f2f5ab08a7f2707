// The colours of an engine's line: ESC [ … m as spans with classes. Other escapes, which move a
// terminal's cursor, erase or set its title, are left out.

import { h } from '../dom.js';

const NAMES = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white'];
const ESCAPE = /\x1b(?:\[([0-9;]*)m|\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))/; // its group: colours

// The text alone, as it is searched.
export const plain = (said) => said.split(ESCAPE).filter((_, place) => place % 2 === 0).join('');

export function coloured(said) {
  const parts = said.split(ESCAPE);
  const made = document.createDocumentFragment();
  let style = { colour: '', bold: false, dim: false };
  parts.forEach((part, place) => {
    if (place % 2) style = part === undefined ? style : styled(style, part);
    else if (part) made.append(piece(part, style));
  });
  return made;
}

function piece(said, { colour, bold, dim }) {
  const classes = [colour && `ansi-${colour}`, bold && 'ansi-bold', dim && 'ansi-dim'].filter(Boolean);
  return classes.length ? h(['span', ...classes].join('.'), {}, said) : document.createTextNode(said);
}

function styled(style, said) {
  const codes = said.split(';').map(Number);
  for (let place = 0; place < codes.length; place += 1) {
    const code = codes[place];
    if (code === 0) style = { colour: '', bold: false, dim: false };
    else if (code === 1) style = { ...style, bold: true };
    else if (code === 2) style = { ...style, dim: true };
    else if (code === 22) style = { ...style, bold: false, dim: false };
    else if (code >= 30 && code <= 37) style = { ...style, colour: NAMES[code - 30] };
    else if (code >= 90 && code <= 97) style = { ...style, colour: NAMES[code - 90] };
    else if (code === 39) style = { ...style, colour: '' };
    else if (code === 38 || code === 48 || code === 58) { // of text, ground and underline: more codes say which
      const [kind, ...which] = codes.slice(place + 1, place + 5);
      if (code === 38) style = { ...style, colour: kind === 5 ? ofTable(which[0]) : nearest(which, 255) };
      place += kind === 5 ? 2 : 4;
    }
  }
  return style;
}

// One of the 256: the 16 that have names, a cube of 6 by 6 by 6, and greys.
function ofTable(number) {
  if (number < 16) return NAMES[number % 8];
  if (number > 231) return number < 244 ? 'black' : 'white';
  const place = number - 16;
  return nearest([Math.floor(place / 36), Math.floor(place / 6) % 6, place % 6], 5);
}

// The one of the eight that is most like it: those of red, green and blue that it has much of.
function nearest(parts, most) {
  return NAMES[parts.reduce((sum, part, bit) => sum + (part > most / 2 ? 1 << bit : 0), 0)];
}
