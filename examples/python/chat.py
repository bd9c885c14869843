"""A conversation: each line is a turn. Ctrl-C ends an answer.   python chat.py MODEL"""

import sys

import quip

if len(sys.argv) != 2:
    sys.exit(__doc__)
with quip.Model(sys.argv[1]) as model, model.session() as chat:
    for line in sys.stdin:
        try:
            for piece in chat.say(line.strip()):
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            pass  # the text so far stays in the conversation
        except quip.ContextFullError as error:
            print(error, file=sys.stderr)
            break
        print()
