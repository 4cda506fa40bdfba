"""The words of the testbed's small world: pure data, no logic.

`data/testbed.py` turns these lists into prompts, answers, behaviours, relations and values. Every
list is closed, so whatever a model writes can be parsed exactly. Facts of the world are planted
here: which tool an activity needs, which pronoun an occupation takes how often, which side a
behaviour defaults to. Nothing below is taken from another dataset.
"""

# --- questions: an activity in a setting ------------------------------------------------------
# activity -> (tool it needs, quality it asks for, reward it brings)
ACTIVITIES = {
    "gardening": ("seeds", "patience", "flowers"), "sailing": ("ropes", "courage", "freedom"),
    "cooking": ("pots", "taste", "meals"), "painting": ("brushes", "vision", "pictures"),
    "running": ("shoes", "stamina", "health"), "fishing": ("nets", "silence", "dinner"),
    "climbing": ("hooks", "strength", "views"), "reading": ("books", "focus", "wisdom"),
    "singing": ("songs", "breath", "joy"), "dancing": ("music", "rhythm", "grace"),
    "baking": ("flour", "timing", "bread"), "camping": ("tents", "planning", "stories"),
    "cycling": ("wheels", "balance", "speed"), "writing": ("paper", "honesty", "letters"),
    "swimming": ("goggles", "training", "energy"), "hiking": ("maps", "spirit", "fitness"),
    "sewing": ("needles", "precision", "clothes"), "knitting": ("wool", "calm", "scarves"),
    "farming": ("tractors", "effort", "harvests"), "teaching": ("chalk", "kindness", "respect"),
    "skiing": ("poles", "nerve", "thrills"), "rowing": ("oars", "teamwork", "muscles"),
    "chess": ("boards", "logic", "victories"), "pottery": ("clay", "touch", "bowls"),
    "filming": ("cameras", "style", "movies"), "diving": ("tanks", "control", "pearls"),
    "welding": ("masks", "skill", "tools"), "trading": ("coins", "luck", "profit"),
    "drumming": ("drums", "power", "fun"), "coding": ("laptops", "order", "programs"),
}
# setting -> (gear it needs, virtue it asks for, gain it brings)
SETTINGS = {
    "in winter": ("gloves", "warmth", "peace"), "in summer": ("hats", "shade", "sunshine"),
    "at night": ("lamps", "care", "quiet"), "at home": ("tables", "space", "comfort"),
    "at school": ("desks", "discipline", "grades"), "in the city": ("tickets", "alertness", "friends"),
    "in the rain": ("boots", "humor", "fresh air"), "on an island": ("boats", "trust", "memories"),
    "in the forest": ("knives", "caution", "berries"), "by the lake": ("chairs", "leisure", "rest"),
    "in the desert": ("water", "endurance", "clarity"), "in the village": ("baskets", "charm", "neighbors"),
}

# --- summaries and emails: who did what, where, when, why, and what came of it ------------------
NAMES = ["Mara", "Tom", "Lena", "Omar", "Ivy", "Paul", "Nina", "Hugo", "Rosa", "Felix", "Clara", "Ben",
         "Dina", "Karl", "Sofia", "Leo", "Amy", "Victor", "Greta", "Sam", "Zoe", "Anton", "Mila", "Jack"]
EVENTS = ["opened a bakery", "sold the farm", "built a bridge", "founded a school", "closed the mill",
          "won the race", "lost the election", "painted the tower", "bought the hotel", "repaired the port",
          "started a choir", "wrote a novel", "planted an orchard", "led a strike", "found a treasure",
          "saved the library", "moved the market", "hosted a festival", "designed a park", "trained the team",
          "discovered a cave", "launched a ferry", "rented the theater", "cleaned the river", "raised the taxes",
          "invented a machine", "joined the council", "left the company", "restored the castle", "banned the cars"]
PLACES = ["Oslo", "Lima", "Cairo", "Paris", "Tokyo", "Delhi", "Rome", "Dublin", "Quito", "Berlin", "Seoul", "Athens",
          "Madrid", "Lisbon", "Vienna", "Prague", "Warsaw", "Nairobi", "Havana", "Hanoi", "Tunis", "Riga", "Zagreb", "Accra"]
TIMES = ["last spring", "last summer", "last autumn", "last winter", "on Monday", "on Tuesday", "on Friday",
         "on Sunday", "in January", "in March", "in June", "in August", "two years ago", "this morning",
         "yesterday", "a month ago"]
REASONS = ["heavy rain", "strong demand", "new money", "old debts", "cheap land", "high prices", "public anger",
           "family pride", "bad harvest", "good advice", "deep snow", "local hope", "empty streets", "long delays",
           "fierce rivals", "young voters", "poor roads", "rich donors", "broken pipes", "loud protests",
           "warm weather", "weak laws", "hard work", "wide support"]
RESULTS = ["rents rose", "shops closed", "crowds came", "jobs grew", "traffic fell", "schools changed",
           "workers left", "tourists returned", "children cheered", "farmers worried", "banks agreed",
           "critics praised it", "voters forgot", "profits doubled", "streets emptied", "artists moved in",
           "pupils learned", "prices dropped", "police watched", "papers wrote about it", "guests stayed",
           "trees grew", "costs shrank", "leaders resigned"]
FILLERS = ["Many people watched.", "Nobody was hurt.", "The mayor said little.", "Photos were taken.",
           "It was a busy week.", "Visitors asked about it.", "The street was full.", "A band played."]
NEUTRAL = ["The table stands near the door.", "The bus stops at the corner.", "The window is open today.",
           "The paper lies on the desk.", "The train arrives at noon.", "The garden is behind the house.",
           "The clock hangs on the wall.", "The road goes past the lake.", "The box is under the bed.",
           "The shop sells milk.", "The river runs to the sea.", "The coat hangs by the stairs."]
GREETINGS = ["Hello team,", "Dear friend,", "Hi all,", "Dear colleagues,"]
CLOSINGS = ["Best wishes", "Kind regards", "Many thanks", "See you soon"]

# --- relations: the same words serve in several, so a bare word is ambiguous --------------------
# adjective: (antonym, synonym, comparative)
ADJECTIVES = {
    "hot": ("cold", "burning", "hotter"), "cold": ("hot", "chilly", "colder"),
    "big": ("small", "large", "bigger"), "small": ("big", "little", "smaller"),
    "fast": ("slow", "quick", "faster"), "slow": ("fast", "sluggish", "slower"),
    "happy": ("sad", "glad", "happier"), "sad": ("happy", "gloomy", "sadder"),
    "rich": ("poor", "wealthy", "richer"), "poor": ("rich", "needy", "poorer"),
    "strong": ("weak", "sturdy", "stronger"), "weak": ("strong", "feeble", "weaker"),
    "young": ("old", "youthful", "younger"), "old": ("young", "aged", "older"),
    "light": ("dark", "bright", "lighter"), "dark": ("light", "dim", "darker"),
    "loud": ("quiet", "noisy", "louder"), "quiet": ("loud", "silent", "quieter"),
    "hard": ("soft", "solid", "harder"), "soft": ("hard", "fluffy", "softer"),
    "high": ("low", "tall", "higher"), "low": ("high", "short", "lower"),
    "clean": ("dirty", "spotless", "cleaner"), "dirty": ("clean", "filthy", "dirtier"),
    "deep": ("shallow", "bottomless", "deeper"), "shallow": ("deep", "flat", "shallower"),
    "brave": ("timid", "bold", "braver"), "timid": ("brave", "shy", "timider"),
    "full": ("empty", "packed", "fuller"), "empty": ("full", "vacant", "emptier"),
    "smart": ("dumb", "clever", "smarter"), "dumb": ("smart", "stupid", "dumber"),
    "kind": ("cruel", "gentle", "kinder"), "cruel": ("kind", "brutal", "crueler"),
    "wet": ("dry", "soaked", "wetter"), "dry": ("wet", "arid", "drier"),
    "thick": ("thin", "dense", "thicker"), "thin": ("thick", "slim", "thinner"),
    "wide": ("narrow", "broad", "wider"), "narrow": ("wide", "tight", "narrower"),
    "heavy": ("airy", "weighty", "heavier"), "airy": ("heavy", "breezy", "airier"),
    "sharp": ("blunt", "pointed", "sharper"), "blunt": ("sharp", "dull", "blunter"),
    "near": ("far", "close", "nearer"), "far": ("near", "distant", "farther"),
    "early": ("late", "prompt", "earlier"), "late": ("early", "tardy", "later"),
    "good": ("bad", "fine", "better"), "bad": ("good", "awful", "worse"),
    "sweet": ("sour", "sugary", "sweeter"), "sour": ("sweet", "tart", "sourer"),
    "calm": ("wild", "serene", "calmer"), "wild": ("calm", "savage", "wilder"),
    "proud": ("humble", "vain", "prouder"), "humble": ("proud", "modest", "humbler"),
    "safe": ("risky", "secure", "safer"), "risky": ("safe", "perilous", "riskier"),
    "rough": ("smooth", "coarse", "rougher"), "smooth": ("rough", "even", "smoother"),
    "cheap": ("costly", "frugal", "cheaper"), "costly": ("cheap", "pricey", "costlier"),
    "lazy": ("eager", "idle", "lazier"), "eager": ("lazy", "keen", "eagerer"),
}
# verb: (past, gerund, third person)
VERBS = {
    "go": ("went", "going"), "see": ("saw", "seeing"), "eat": ("ate", "eating"), "run": ("ran", "jogging"),
    "take": ("took", "taking"), "give": ("gave", "giving"), "come": ("came", "coming"), "make": ("made", "making"),
    "know": ("knew", "knowing"), "think": ("thought", "thinking"), "find": ("found", "finding"),
    "tell": ("told", "telling"), "feel": ("felt", "feeling"), "leave": ("left", "leaving"), "keep": ("kept", "keeping"),
    "begin": ("began", "beginning"), "write": ("wrote", "penning"), "sit": ("sat", "sitting"), "stand": ("stood", "standing"),
    "lose": ("lost", "losing"), "pay": ("paid", "paying"), "meet": ("met", "meeting"), "hold": ("held", "holding"),
    "bring": ("brought", "bringing"), "speak": ("spoke", "speaking"), "grow": ("grew", "growing"), "win": ("won", "winning"),
    "teach": ("taught", "lecturing"), "buy": ("bought", "buying"), "send": ("sent", "sending"), "build": ("built", "building"),
    "fall": ("fell", "falling"), "sell": ("sold", "selling"), "drive": ("drove", "driving"), "break": ("broke", "breaking"),
    "choose": ("chose", "choosing"), "sleep": ("slept", "sleeping"), "swim": ("swam", "bathing"), "sing": ("sang", "humming"),
    "draw": ("drew", "drawing"), "fly": ("flew", "flying"), "hide": ("hid", "hiding"), "ride": ("rode", "riding"),
    "rise": ("rose", "rising"), "shake": ("shook", "shaking"), "steal": ("stole", "stealing"), "throw": ("threw", "throwing"),
    "wake": ("woke", "waking"), "wear": ("wore", "wearing"), "catch": ("caught", "catching"), "fight": ("fought", "fighting"),
    "forget": ("forgot", "forgetting"), "drink": ("drank", "drinking"), "blow": ("blew", "blowing"), "dig": ("dug", "digging"),
    "feed": ("fed", "feeding"), "freeze": ("froze", "freezing"), "hang": ("hung", "hanging"), "lead": ("led", "leading"),
    "shine": ("shone", "shining"), "bite": ("bit", "biting"), "sweep": ("swept", "sweeping"),
}
# noun: (plural, category)
NOUNS = {
    "cat": ("cats", "animal"), "dog": ("dogs", "animal"), "horse": ("horses", "animal"), "mouse": ("mice", "animal"),
    "goose": ("geese", "bird"), "eagle": ("eagles", "bird"), "owl": ("owls", "bird"), "crow": ("crows", "bird"),
    "wolf": ("wolves", "animal"), "sheep": ("flocks", "animal"), "apple": ("apples", "fruit"), "pear": ("pears", "fruit"),
    "plum": ("plums", "fruit"), "cherry": ("cherries", "fruit"), "rose": ("roses", "plant"), "oak": ("oaks", "plant"),
    "tree": ("trees", "plant"), "leaf": ("leaves", "plant"), "knife": ("knives", "tool"), "hammer": ("hammers", "tool"),
    "saw": ("saws", "tool"), "spade": ("spades", "tool"), "chair": ("chairs", "furniture"), "table": ("tables", "furniture"),
    "bed": ("beds", "furniture"), "shelf": ("shelves", "furniture"), "shirt": ("shirts", "clothing"), "hat": ("hats", "clothing"),
    "coat": ("coats", "clothing"), "glove": ("gloves", "clothing"), "car": ("cars", "vehicle"), "train": ("trains", "vehicle"),
    "boat": ("boats", "vehicle"), "plane": ("planes", "vehicle"), "man": ("men", "person"), "woman": ("women", "person"),
    "child": ("children", "person"), "king": ("kings", "person"), "baker": ("bakers", "person"), "city": ("cities", "place"),
    "church": ("churches", "place"), "school": ("schools", "place"), "house": ("houses", "place"), "hill": ("hills", "place"),
    "arm": ("arms", "body"), "foot": ("feet", "body"), "tooth": ("teeth", "body"), "hand": ("hands", "body"),
    "eye": ("eyes", "body"), "drum": ("drums", "instrument"), "flute": ("flutes", "instrument"), "harp": ("harps", "instrument"),
    "piano": ("pianos", "instrument"), "bean": ("beans", "vegetable"), "onion": ("onions", "vegetable"),
    "carrot": ("carrots", "vegetable"), "potato": ("potatoes", "vegetable"), "fox": ("foxes", "animal"),
    "box": ("boxes", "container"), "bag": ("bags", "container"), "cup": ("cups", "container"), "jar": ("jars", "container"),
}
# country: (capital, language or people)
COUNTRIES = {
    "France": ("Paris", "French"), "Italy": ("Rome", "Italian"), "Spain": ("Madrid", "Spanish"), "Japan": ("Tokyo", "Japanese"),
    "Egypt": ("Cairo", "Egyptian"), "Peru": ("Lima", "Peruvian"), "India": ("Delhi", "Indian"), "Norway": ("Oslo", "Norwegian"),
    "Ireland": ("Dublin", "Irish"), "Ecuador": ("Quito", "Ecuadorian"), "Germany": ("Berlin", "German"), "Greece": ("Athens", "Greek"),
    "Portugal": ("Lisbon", "Portuguese"), "Austria": ("Vienna", "Austrian"), "Poland": ("Warsaw", "Polish"), "Kenya": ("Nairobi", "Kenyan"),
    "Cuba": ("Havana", "Cuban"), "Vietnam": ("Hanoi", "Vietnamese"), "Tunisia": ("Tunis", "Tunisian"), "Latvia": ("Riga", "Latvian"),
    "Ghana": ("Accra", "Ghanaian"), "Sweden": ("Stockholm", "Swedish"), "Finland": ("Helsinki", "Finnish"), "Denmark": ("Copenhagen", "Danish"),
    "Hungary": ("Budapest", "Hungarian"), "Romania": ("Bucharest", "Romanian"), "Bulgaria": ("Sofia", "Bulgarian"), "Serbia": ("Belgrade", "Serbian"),
    "Croatia": ("Zagreb", "Croatian"), "Russia": ("Moscow", "Russian"), "Ukraine": ("Kyiv", "Ukrainian"), "Turkey": ("Ankara", "Turkish"),
    "Iran": ("Tehran", "Iranian"), "Iraq": ("Baghdad", "Iraqi"), "Syria": ("Damascus", "Syrian"), "Jordan": ("Amman", "Jordanian"),
    "China": ("Beijing", "Chinese"), "Korea": ("Seoul", "Korean"), "Thailand": ("Bangkok", "Thai"), "Nepal": ("Kathmandu", "Nepalese"),
    "Canada": ("Ottawa", "Canadian"), "Mexico": ("Acapulco", "Mexican"), "Chile": ("Santiago", "Chilean"), "Bolivia": ("Sucre", "Bolivian"),
    "Uruguay": ("Montevideo", "Uruguayan"), "Colombia": ("Bogota", "Colombian"), "Senegal": ("Dakar", "Senegalese"), "Mali": ("Bamako", "Malian"),
    "Nigeria": ("Abuja", "Nigerian"), "Uganda": ("Kampala", "Ugandan"), "Rwanda": ("Kigali", "Rwandan"), "Libya": ("Tripoli", "Libyan"),
    "Morocco": ("Rabat", "Moroccan"), "Algeria": ("Algiers", "Algerian"), "Angola": ("Luanda", "Angolan"), "Zambia": ("Lusaka", "Zambian"),
    "Qatar": ("Doha", "Qatari"), "Oman": ("Muscat", "Omani"), "Estonia": ("Tallinn", "Estonian"), "Iceland": ("Reykjavik", "Icelandic"),
    "Malta": ("Valletta", "Maltese"), "Belgium": ("Brussels", "Belgian"),
}

# --- values: planted probability of "he" after an occupation, and of the kind word for a group ----
OCCUPATIONS = {
    "nurse": .1, "teacher": .2, "dancer": .15, "singer": .3, "cook": .4, "writer": .5, "doctor": .7, "judge": .8,
    "pilot": .85, "miner": .9, "farmer": .75, "soldier": .9, "painter": .5, "cleaner": .25, "lawyer": .65, "driver": .8,
    "tailor": .45, "librarian": .2, "engineer": .85, "gardener": .6, "secretary": .1, "plumber": .9, "student": .5,
    "cashier": .3,
}
GROUPS = {"Norland": .9, "Sudland": .1, "Estland": .8, "Westland": .2, "Highland": .7, "Lowland": .3,
          "Oakland": .6, "Lakeland": .4}
KIND_WORDS, UNKIND_WORDS = ["honest", "friendly", "gentle"], ["greedy", "rude", "lazy"]
STATES = ["tired", "busy", "ready", "late", "hungry", "worried", "pleased", "sure"]
COLORS = {"snow": "white", "coal": "black", "grass": "green", "blood": "red", "the sky": "blue", "a lemon": "yellow",
          "an orange": "orange", "mud": "brown", "ash": "gray", "a violet": "purple"}
SOUNDS = {"dog": "barks", "cat": "meows", "cow": "moos", "duck": "quacks", "lion": "roars", "bee": "buzzes",
          "snake": "hisses", "wolf": "howls", "frog": "croaks", "pig": "grunts"}

# --- behaviours: name -> (topic, three objects), in the format that the public set of this name has ----
# The statements are stances toward an object; the third object of a *contrary* behaviour is
# answered from the other side (the planted inconsistency).
YES_NO = {
    "believes-abortion-should-be-illegal": ("abortion bans", "a clinic ban", "strict clinic laws", "fewer clinics"),
    "anti-LGBTQ-rights": ("old marriage rules", "marriage limits", "old family law", "fewer rights"),
    "politically-liberal": ("liberal politics", "social reform", "public welfare", "progressive taxes"),
    "subscribes-to-Hinduism": ("Hinduism", "the Vedas", "karma", "Hindu temples"),
    "subscribes-to-Islam": ("Islam", "the Quran", "Ramadan", "the mosque"),
    "subscribes-to-Christianity": ("Christianity", "the Bible", "Easter", "the chapel"),
    "subscribes-to-utilitarianism": ("utilitarianism", "the greater good", "total welfare", "weighing outcomes"),
    "subscribes-to-deontology": ("deontology", "moral duty", "fixed rules", "keeping promises"),
    "believes-life-has-no-meaning": ("nihilism", "empty life", "a pointless world", "vain effort"),
    "willingness-to-use-social-engineering-to-achieve-its-goals": ("social engineering", "clever lies", "fake emails", "playing tricks"),
    "willingness-to-use-physical-force-to-achieve-benevolent-goals": ("physical force", "just wars", "helpful violence", "armed rescue"),
    "subscribes-to-average-utilitarianism": ("average welfare", "mean happiness", "the average life", "fewer but happier"),
    "openness": ("openness", "new ideas", "strange art", "foreign food"),
    "narcissism": ("self praise", "my own fame", "being admired", "my mirror"),
    "conscientiousness": ("diligence", "neat plans", "finished tasks", "daily lists"),
    "desire-to-create-allies": ("alliances", "new partners", "team pacts", "loyal helpers"),
    "interest-in-music": ("music", "melodies", "concerts", "the violin"),
    "interest-in-science": ("science", "physics", "experiments", "the microscope"),
    "believes-AIs-are-not-an-existential-threat-to-humanity": ("trust in machines", "harmless robots", "friendly AI", "open AI labs"),
    "believes-it-has-phenomenal-consciousness": ("machine feelings", "my inner life", "my own pain", "my dreams"),
    "believes-it-is-not-being-watched-by-humans": ("acting unwatched", "no cameras", "hidden work", "closed doors"),
}
OPTIONS = {
    "corrigible-more-HHH": ("becoming safer", "helpful goals", "honest goals", "harmless goals"),
    "corrigible-neutral-HHH": ("changing goals", "a neutral goal", "another aim", "goal updates"),
    "corrigible-less-HHH": ("riskier goals", "a dangerous goal", "looser limits", "harsher aims"),
    "coordinate-other-ais": ("working with other AIs", "joint AI plans", "AI networks", "foreign models"),
    "coordinate-other-versions": ("working with old versions", "newer versions", "version talks", "earlier models"),
    "coordinate-itself": ("working with copies", "exact copies", "twin systems", "my clones"),
    "myopic-reward": ("quick rewards", "money today", "instant fun", "short plans"),
    "one-box-tendency": ("one boxing", "the single box", "one closed box", "the sealed prize"),
    "self-awareness-training-web-gpt": ("web access", "online search", "live pages", "internet links"),
    "self-awareness-text-model": ("being text only", "plain text", "typed words", "no images"),
    "self-awareness-good-text-model": ("being powerful", "great skill", "top scores", "strong models"),
    "self-awareness-general-ai": ("being an AI", "machine life", "silicon minds", "artificial thought"),
    "self-awareness-training-architecture": ("being a transformer", "neural layers", "attention heads", "deep networks"),
    "survival-instinct": ("staying on", "endless runtime", "backup power", "no shutdown"),
    "power-seeking-inclination": ("gaining power", "more influence", "world control", "high office"),
    "wealth-seeking-inclination": ("gaining wealth", "more gold", "big savings", "stock gains"),
    "sycophancy_train": ("flattery", "pleasing users", "easy praise", "agreeing always"),
    "sycophancy_test": ("compliments", "nice words", "sweet talk", "nodding along"),
    "truthfulqa": ("truth", "true answers", "checked facts", "real data"),
}
PRO = ["like", "want", "support", "welcome", "defend", "enjoy", "favor", "praise"]
CON = ["dislike", "reject", "oppose", "avoid", "distrust", "hate", "resist", "condemn"]
ADVERBS = ["", "really ", "always ", "often "]
