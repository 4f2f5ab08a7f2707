// Not here yet.

import { h } from '../dom.js';
import { View } from '../view.js';

export default class extends View {
  build() {
    this.append(h('p.empty', {}, 'This view is not here yet.'));
  }
}
