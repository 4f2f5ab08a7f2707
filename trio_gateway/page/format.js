// Values as people read them. A value that is not known is a dash.

const NONE = '–';
const whole = new Intl.NumberFormat('en');
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const number = (value) => (known(value) ? whole.format(Math.round(value)) : NONE);

// 0.42 s, 8.3 s, 42 s, 2 min 05 s, 3 h 10 min, 2 d 4 h
export function seconds(value) {
  if (!known(value)) return NONE;
  const s = Math.max(value, 0);
  if (s < 0.0995) return `${Math.round(s * 1000)} ms`;
  if (s < 0.995) return `${s.toFixed(2)} s`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  if (s < 3599.5) return `${Math.floor(Math.round(s) / 60)} min ${String(Math.round(s) % 60).padStart(2, '0')} s`;
  if (s < 86370) return `${Math.floor(Math.round(s / 60) / 60)} h ${Math.round(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// Of something that goes on: whole seconds, so that it does not flicker.
export const counting = (value) => (known(value) && value < 60 ? `${Math.floor(Math.max(value, 0))} s` : seconds(value));

export function bytes(value) {
  if (!known(value)) return NONE;
  if (value < 1024) return `${Math.round(value)} B`;
  let [size, unit] = [value, 0];
  while (size >= 1023.5 && unit < 4) [size, unit] = [size / 1024, unit + 1];
  return `${size < 9.95 ? size.toFixed(1) : Math.round(size)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

export const speed = (value) => (known(value) ? `${value < 9.95 ? value.toFixed(1) : whole.format(Math.round(value))} tok/s` : NONE);

export const percent = (part, all) => (known(part) && all ? `${Math.round((part / all) * 100)} %` : NONE);

const clockTime = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const shortTime = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
const dayTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' });

export const clock = (unix) => (known(unix) ? clockTime.format(unix * 1000) : NONE);
export const minute = (unix) => (known(unix) ? shortTime.format(unix * 1000) : NONE);
export const moment = (unix) => (known(unix) ? dayTime.format(unix * 1000) : NONE);

// What `encodeURIComponent` made, as it was; anything else, such as "100%", as it is.
export function decoded(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

export const plural = (count, one, many = `${one}s`) => `${whole.format(count)} ${count === 1 ? one : many}`;
