// The colours of an engine's line: ESC [ … m as spans with classes; any other escape is shown as it is.

import { h } from '../dom.js';

const NAMES = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white'];

export function coloured(said) {
  const parts = said.split(/\x1b\[([0-9;]*)m/);
  const made = document.createDocumentFragment();
  let style = { colour: '', bold: false, dim: false };
  parts.forEach((part, place) => {
    if (place % 2) style = styled(style, part);
    else if (part) made.append(piece(part, style));
  });
  return made;
}

function piece(said, { colour, bold, dim }) {
  const classes = [colour && `ansi-${colour}`, bold && 'ansi-bold', dim && 'ansi-dim'].filter(Boolean);
  return classes.length ? h(['span', ...classes].join('.'), {}, said) : document.createTextNode(said);
}

function styled(style, codes) {
  for (const code of codes.split(';').map(Number)) {
    if (code === 0) style = { colour: '', bold: false, dim: false };
    else if (code === 1) style = { ...style, bold: true };
    else if (code === 2) style = { ...style, dim: true };
    else if (code === 22) style = { ...style, bold: false, dim: false };
    else if (code >= 30 && code <= 37) style = { ...style, colour: NAMES[code - 30] };
    else if (code >= 90 && code <= 97) style = { ...style, colour: NAMES[code - 90] };
    else if (code === 39) style = { ...style, colour: '' };
  }
  return style;
}
