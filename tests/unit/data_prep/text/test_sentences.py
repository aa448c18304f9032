"""Sentences of Portuguese text: one case a trap."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.text.sentences import sentences

CASES = [  # sentences as they must come out; they are joined by a space
    ["O Sr. Silva chegou cedo.", "A Dra. Marta Reis já lá estava."],
    ["O n.º 3 do art. 5.º foi revogado.", "O n.º 4 mantém-se."],
    ["Custa 1.234,56 €.", "Antes custava 980,00 €."],
    ["Nasceu a 12.03.1987 em Braga.", "Morreu em 2019."],
    ["Não sei… talvez venha amanhã.", "Logo se vê."],
    ["Esperou... e nada.", "Depois foi-se embora..."],
    ["«Não vou.»", "Fechou a porta e saiu."],
    ["«Não vou», disse ela.", "Ninguém respondeu."],
    ["— Vens comigo? — perguntou a Maria.", "— Agora não."],
    ["— Sim!", "— Então anda."],
    ["Que horas são?!", "São três."],
    ["Está frio!", "E chove?", "Também."],
    ["O escritor J. M. Coutinho leu o texto.", "A sala aplaudiu."],
    ["Comprou pão, leite, fruta, etc. e voltou.", "Chegou tarde."],
    ["Comprou pão, leite, etc.", "Depois voltou."],
    ["A Silva & Filhos, Lda. fechou em 2010.", "Abriu outra loja."],
    ["Trabalha na Correia, S.A. desde maio.", "Gosta do que faz."],
    ["A empresa é a Correia, S.A.", "Tem dez pessoas."],
    ["Viveu no séc. XIX, em Évora.", "No séc. XX já ninguém o lia."],
    ["Ver pág. 12 e fig. 3.", "Ver também o cap. IV."],
    ["O Prof. Doutor A. Nunes e a Eng.ª Rita vieram.", "O Arq. Sousa faltou."],
    ["Júlio César morreu em 44 a.C. e deixou herdeiros.", "Foi há muito tempo."],
    ["Mora na R. das Flores, n.º 7, 2.º Dto.", "Tem elevador."],
    ["Mora na Av. da Liberdade.", "É longe."],
    ["O tel. 253 000 000 está avariado.", "Escreva, por favor."],
    ["Escreva para geral@exemplo.pt ou veja www.exemplo.pt/ajuda.", "Respondemos em 24 h."],
    ["Abre às 9.30 e fecha às 18.00.", "Ao domingo não abre."],
    ["Gosta de fruta, p. ex. maçãs.", "Não gosta de uvas."],
    ["(O museu fecha à segunda-feira.)", "Entrada gratuita."],
    ["Leu o livro (uma edição antiga).", "Gostou."],
    ["1. Ligue o forno.", "2. Bata os ovos."],
    ["Faltam 3.", "Chegam amanhã."],
    ["Saiu em 2024.", "Voltou em 2025."],
    ["A reunião é a 3 jan. 2024, às 10 h.", "Não falte."],
    ["Foram ver o mar.", "Estava bravo."],
    ["O réu alegou o disposto na al. b) do n.º 1.", "O tribunal não aceitou."],
    ["Exmo. Sr. Diretor,"],
    ["A D. Amélia e a Sra. D. Rosa riram-se.", "Ninguém percebeu porquê."],
    ["“Claro que sim.”", "E foi."],
    ["Disse «talvez!» e riu-se.", "Era tarde."],
    ["Segundo o Min. Público, houve crime.", "A defesa nega."],
    ["Veja-se a obra (cf. Reis, 2004, pp. 12-15).", "É clara."],
    ["Os E.U.A. e o Canadá assinaram.", "O México não."],
    ["Tem 1,75 m de altura.", "Pesa 68,5 kg."],
    ["Foi a S. João da Pesqueira.", "Voltou a Sto. Tirso."],
    ["São 20 min. de comboio.", "De carro são 35 min."],
    ["Correu a prova em 4 min. 5,75 s.", "Foi um recorde."],
    ["A 1.ª parte acabou 0-0.", "Na 2.ª houve golos."],
    ["Há 10 000 pessoas na praça.", "100 polícias vigiam."],
]


@pytest.mark.parametrize("expected", CASES, ids=lambda case: case[0][:30])
def test_each_trap(expected):
    assert sentences(" ".join(expected)) == expected


def test_rows_and_paragraphs_end_sentences():
    assert sentences("Lista de compras\npão\nleite\n\nNão esquecer o troco.") == [
        "Lista de compras", "pão", "leite", "Não esquecer o troco.",
    ]  # fmt: skip


@given(st.text(alphabet="aÁb .…!?«»\n1,—()Sr", max_size=80))
def test_nothing_is_lost(text):
    found = sentences(text)
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text)
    assert all(piece == piece.strip() and piece for piece in found)
