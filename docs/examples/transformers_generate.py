"""A guarded language model of transformers; what it generates, and streams, is what may leave."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from guard import Guard

# A model of random weights that writes letters; any causal model and its tokenizer stand here too.
letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
spelling = Tokenizer(models.BPE(letters, []))
spelling.pre_tokenizer, spelling.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelling)
sizes = GPT2Config(vocab_size=256, n_embd=8, n_layer=1, n_head=1, eos_token_id=None)
model = GPT2LMHeadModel(sizes)

guarded = Guard.load("public").wrap(model, tokenizer=tokenizer)
asked = tokenizer("What grows in the shade?", return_tensors="pt")
given = guarded.generate(**asked, max_new_tokens=20, return_dict_in_generate=True)
print(given.verdicts[0].action, given.texts[0])
with guarded.stream(**asked, max_new_tokens=20) as stream:
    print("".join(stream))
