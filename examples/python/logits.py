"""Print the most likely next tokens of a text.   python logits.py MODEL TEXT"""

import sys

import numpy as np

import quip

if len(sys.argv) != 3:
    sys.exit(__doc__)
path, text = sys.argv[1:]
with quip.Model(path) as model, model.session() as session:
    session.append(quip.Role.NONE, text)
    logits = session.logits()
    assert logits is not None
    probs = np.exp(logits - logits.max())
    probs /= probs.sum()
    for token in np.argsort(-logits)[:5]:
        print(f"{probs[token]:6.1%}  {model.detokenize([token])!r}")
