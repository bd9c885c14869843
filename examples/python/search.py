"""Find the texts that are closest to a question.   python search.py MODEL QUESTION < texts.txt"""

import sys

import quip

if len(sys.argv) != 3:
    sys.exit(__doc__)
path, question = sys.argv[1:]
texts = [line.strip() for line in sys.stdin if line.strip()]
with quip.Model(path) as model:
    query = {"prompt": "query"} if "query" in model.prompts else {}
    pooling = {} if model.info.is_embedding else {"pooling": "last"}
    similar = model.embed(texts, **pooling) @ model.embed(question, **query, **pooling)
for i in similar.argsort()[::-1][:5]:
    print(f"{similar[i]:.3f}  {texts[i]}")
