// What views keep over a reload, for this tab only.

const PLACE = 'trio-gateway-'; // and the name, in sessionStorage

export function keep(name, value) {
  sessionStorage.setItem(PLACE + name, JSON.stringify(value));
}

// As it was kept, if it was; with the fields of `first` that it does not have.
export function kept(name, first) {
  try {
    return { ...first, ...JSON.parse(sessionStorage.getItem(PLACE + name)) };
  } catch {
    return first;
  }
}
