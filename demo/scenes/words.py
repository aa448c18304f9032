"""The strings drawn into images: Portuguese words, made-up acronyms, names from Babel's pt_PT data."""

import functools
import random
import re

from babel import Locale

from demo.scenes.split import Side, side_of

LETTERS = 4  # of every string that is drawn: two to a tile
ORDINALS = ("primeira", "segunda", "terceira", "quarta")  # letra

#: Common words without accents; those of four letters are drawn, in capitals.
_WORDS = """
abril agora ainda ajuda alga algo alto aluno amigo amor anel anjo ano antes apito arco areia arma arte asa
atlas atum aula autor aves azeda bacia baile balde balsa banco banda banho barba barca barco barro base bata
batom beber beijo belo berma bicho bico bingo bispo boca bocal bode bola bolo bolsa bomba bordo bota botas
braga brava breve brisa broa bruma burro busto cabo cabra cacau cacho caixa caju calma calor cama campo
canal canil canja canoa canto capa cara carga caro carro carta casa casca cauda caule causa cave cedo cedro
ceia cenas cera cesta cesto chama chave cheia cheio chita choco chuva cidra cima cinco cinto circo cisne
claro clima clube cobra cobre coco cofre coisa cola colar colo conto copa copo coral corda coro corpo corte
corvo costa couro couve cova cravo creme cria crina cubo cume cunha curso curva dado dama dardo data dedo
denso dente dia dieta digno disco doce dona dono dose drama duna dupla durar duro ecos eixo elmo enfim ermo
errar erva essa estar etapa exame fada faia falar falsa farol farpa fatia fauna fava febre feira feixe feliz
fenda feno fera festa ficha figo fila filho filme fim fino fio firme fita fixo flor foca fogo foice folha
fonte fora forca forno forte foto fraco frade frase freio frio frota fruta fugir fumo fundo funil furo gado
gaita galo gama ganso garfo gata gato gema genro gente gesso gesto girar giz globo gola golo gomo gorro
gosto gota grade grato graxa greve grilo gripe grito grupo guia hino hoje honra hora horta hotel humor idade
ideia igual ilha impar isco jarra jarro jaula jeito jogo joia jovem juba julho junho junto jura justo lado
lago lagoa laje lama lapa largo lata lavar lebre legal leite leito lema lenda lenha lento leque leste letra
levar lima limbo limpo linda linho lira lisa lista livro lixa lixo lobo local logo loja longe lousa lugar
lula lume luva luz macio magro maio maior mala malha manga manta mapa marca massa mata meia mel melro menos
menta mesa mesmo metal meter metro mina mito moda moeda mola monge monte morno moto mudar muito mundo muro
museu nabo nadar nata natal nave navio neto neve ninho nobre noite noiva nome nora norte nota nove novo
nuvem obra ocre oito olhar olho onda ontem ordem osso ostra ouro ovo padre pagar palco palha palma pampa
panda pano papel parar pardo parte passo pasta pata patim pato pausa pavio pedal pedra peixe pele pelo pena
pente pera perna perto peru piano pico pilha pinha pino pinta pipa pires piso pista plano poder poema poeta
polo pomar pombo ponta ponte porco porta porto posto pote pouco praia prata prato prazo preto primo prova
pular pulga pulso pura quase quota rabo raio ramo rampa rapaz raro rasto rede regra rei relva remo renda
resto reta rico rima rio riso rival roca roda rolha rolo rosa rosto rota roupa rua rubi ruivo rumo sabor
sacar saco safra sala salsa salto santo sapo sarda sebe seda selo selva senha ser serra sete setor sino
sobre sofia sol solo sonho sono sopa sorte suave subir sumo surf tacho talco talha tampa tanto tapar tarde
tecla teia teima tela telha tema tempo tenda terno terra teste teto texto tigre tinta tio tipo tocar toda
tomar tonel topo toque torre torta touro traje trave trevo trigo troca trono truta tubo turma turno unha
urso usar uva vaca vagem vale valor vapor vara vaso vasta veado vela veloz vento verbo verde vespa vida
vidro viga vinha vinho viola virar visto viver volta voto vulto xaile zebra zelo zinco zona
"""

_ACRONYM_LETTERS = "ABCDEFGHIJLMNOPQRSTUVXZ"


@functools.cache
def words(side: Side) -> tuple[str, ...]:
    """The words of four plain letters that lie on `side`, in capitals."""
    plain = {word.upper() for word in _WORDS.split() if len(word) == LETTERS}
    return tuple(sorted(word for word in plain if side_of(word) == side))


@functools.cache
def names(side: Side) -> tuple[str, ...]:
    """Countries, languages, months, weekdays and cities of Babel's pt_PT data that lie on `side`, in capitals.

    Only names of four plain letters (LETTERS), as all that is drawn.
    """
    locale = Locale("pt", "PT")
    found: set[str] = set(locale.territories.values()) | set(locale.languages.values())
    found |= set(locale.months["format"]["wide"].values()) | set(locale.days["format"]["wide"].values())
    found |= {zone["city"] for zone in locale.time_zones.values() if "city" in zone}
    plain = {name.upper() for name in found if re.fullmatch(rf"[A-Za-z]{{{LETTERS}}}", name)}
    return tuple(sorted(name for name in plain if side_of(name) == side))


def acronym(rng: random.Random, side: Side) -> str:
    """A made-up acronym of four capitals, on `side` and no word of either side."""
    taken = {*words("train"), *words("eval"), *names("train"), *names("eval")}
    while True:
        text = "".join(rng.choices(_ACRONYM_LETTERS, k=LETTERS))
        if side_of(text) == side and text not in taken:
            return text


def any_string(rng: random.Random, side: Side) -> str:
    """A word, a name or, most often, an acronym: whoever reads acronyms reads words never seen."""
    kind = rng.random()
    if kind < 0.6:
        return acronym(rng, side)
    return rng.choice(words(side) if kind < 0.85 else names(side))
