// View: what views extend. It builds itself once, and follows the store while its tab is open.

export class View extends HTMLElement {
  // The store's topics that it shows (store.js).
  static topics = [];

  #end = null;
  #clock = 0;

  connectedCallback() {
    if (!this.isBuilt) {
      this.isBuilt = true;
      this.build();
    }
    this.#end = this.store.subscribe(this.constructor.topics, (topics) => this.update(topics));
    this.update(new Set(this.constructor.topics));
    this.tick?.();
    if (this.tick) this.#clock = setInterval(() => this.tick(), 1000);
    this.opened?.();
  }

  disconnectedCallback() {
    this.#end?.();
    clearInterval(this.#clock);
    this.closed?.();
  }

  // To define: `build()` makes the elements, once; `update(topics)` shows what has changed;
  // `tick()`, if there is one, counts times on once a second: from moments, it asks nobody;
  // `placeChanged(place)`, `opened()` and `closed()` may be there.
  build() {}

  update() {}

  // Sets the view's place in the URL: a new entry of the history, or the present one in its stead.
  goTo(place, { replace = false } = {}) {
    const hash = `#${this.localName.slice(3)}${place ? `/${place}` : ''}`;
    if (!replace) {
      location.hash = hash;
      return;
    }
    history.replaceState(null, '', hash);
    this.place = place;
  }
}
