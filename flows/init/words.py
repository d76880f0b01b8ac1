"""What columns are called for each role, in several languages; names in which a word says that it is something else.

name_score("Kundennummer", "user") == 2        name_score("user_agent", "user") == 0
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

EXACT, PART = 3, 2

NAMES: dict[str, str] = {
    "user": (
        "user uid customer client visitor member account buyer shopper reader viewer listener player subscriber "
        "cookie device_id anonymous reviewer person profile kunde kunden nutzer benutzer besucher kaeufer mitglied "
        "konto teilnehmer utilisateur usager acheteur visiteur abonne membre usuario cliente comprador visitante "
        "utente acquirente klant gebruiker klient uzytkownik kund 用户 用戶 客户 客戶 会员 會員 顾客 买家 買家 访客 "
        "пользователь клиент покупатель ユーザー 会員 顧客 사용자 고객 회원"
    ),
    "item": (
        "item product article sku asin isbn ean gtin plu stockcode movie film track song video book news content page "
        "goods listing offer game course recipe artist show episode merchandise artikel produkt ware bestellnr titel "
        "produit articulo producto prodotto articolo produto artigo product artykul towar vara varer 商品 产品 產品 "
        "物品 货号 貨號 品目 单品 视频 电影 文章 товар продукт артикул 製品 アイテム 상품 제품 물품"
    ),
    "time": (
        "time timestamp date datetime ts created occurred at when moment epoch zeit datum zeitpunkt zeitstempel "
        "uhrzeit heure horodatage fecha hora tiempo momento tijd tijdstip czas tid data ora 时间 時間 日期 时刻 "
        "时间戳 日時 время дата 시간 일시 날짜"
    ),
    "session": (
        "session sess visit sitzung besuch seance visite sesion visita sessione sessao sessie sesja 会话 會話 访问 "
        "сессия セッション 세션"
    ),
    "basket": (
        "basket order invoice transaction receipt cart_id ticket purchase_id warenkorb bestellung rechnung bon "
        "auftrag beleg panier commande facture pedido factura cesta ordine fattura 订单 訂單 购物车 заказ 注文 주문"
    ),
    "event_type": (
        "event eventtype action behavior behaviour activity interaction verb op operation type aktion ereignis "
        "vorgang typ evenement accion evento tipo azione actie akcja 行为 行為 事件 动作 操作 类型 событие действие "
        "行動 イベント 행동 이벤트"
    ),
    "price": (
        "price unitprice amount cost preis betrag einzelpreis stueckpreis prix montant precio importe prezzo preco "
        "prijs cena kwota pris 价格 價格 单价 金额 цена стоимость 価格 가격"
    ),
    "category": (
        "category categorie kategorie categoria kategoria genre department warengruppe produktgruppe rubrik rayon "
        "rubrique seccion cat section topic 类别 類別 类目 分类 分類 品类 категория カテゴリ 카테고리 분류"
    ),
    "brand": (
        "brand manufacturer vendor label maker marke hersteller marque fabricant marca fabricante merk 品牌 бренд "
        "ブランド 브랜드"
    ),
    "country": (
        "country land pays pais paese nation region location city stadt ville ciudad 国家 國家 地区 城市 страна 国 국가"
    ),
    "device": (
        "device platform os browser channel source referrer geraet kanal appareil dispositivo canal 设备 平台 渠道 "
        "устройство"
    ),
    "position": "position pos order rank step seq sequence idx index reihenfolge rang ordre orden ordine 顺序 位置 順番",
}
# A word that says what else a column is: of a user, an item, ..., but not which.
ELSE: dict[str, str] = {
    "user": "agent name age gender type country city email segment count lastname firstname alter geschlecht rating zip",
    "item": (
        "name title count category categorie kategorie type price preis prix precio description text brand url gruppe "
        "group desc bezeichnung beschreibung nom nombre quantity menge qty rating number_of anzahl"
    ),
    "time": "zone zeitzone timezone spent duration dauer duree duracion dwell elapsed birth",
    "session": "start begin length size end count duration",
    "basket": "date type status count size datum time",
    "event_type": "id time timestamp date count zeit datum name_id device account user product item customer",
    "price": "id currency waehrung type",
    "category": "",
    "brand": "id_count",
    "country": "",
    "device": "device_id",
    "position": "id date time",
}
LATER = frozenset(
    {"update", "updated", "modified", "expiry", "expires", "ende", "end", "birth", "signup", "registered"}
)
LATER |= {"start", "begin", "first", "last", "valid"}


def name_score(name: str, role: str) -> int:
    """How much a column's name says that it has a role: EXACT for the word itself (with `id`), PART for a word in it, or 0."""
    whole, words = _words(name)
    known = _vocabulary(role)
    bare = [word for word in words if word not in ("id", "ids", "nr", "no", "num", "code", "key", "nummer", "number")]
    if any(word in words for word in ELSE[role].split()) and whole not in known:
        return 0
    if whole in known or whole.removesuffix("id") in known or (len(bare) == 1 and bare[0] in known):
        return EXACT
    if any(word in known or _singular(word) in known for word in words):
        return PART
    long = [
        word for word in known if len(word) >= 5 or not word.isascii()
    ]  # parts of compounds: Bestelldatum, 用户编号
    compound = any(whole.endswith(ending) for ending in ("datum", "zeit")) if role == "time" else False
    return PART if compound or any(word in whole for word in long) else 0


def is_of_the_row(name: str) -> bool:
    """Whether a time's name says that it is not that of the event: when an account began, when a row was changed."""
    return bool(LATER & set(_words(name)[1]))


@cache
def _vocabulary(role: str) -> frozenset[str]:
    return frozenset(_plain(word).replace("_", "") for word in NAMES[role].split())


@cache
def _words(name: str) -> tuple[str, tuple[str, ...]]:
    """A name in small letters without accents: as one word, and cut at capitals, signs and digits.

    Of a path the last part, with the parts before it where that says nothing by itself: items[].id is `items id`.
    """
    parts = [part for part in re.split(r"\[\d*\]|\.", name) if part] or [name]
    text = parts[-1] if len(parts[-1]) > 2 else " ".join(parts)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    words = tuple(re.findall(r"[^\W\d_]+", _plain(text)))
    return "".join(words), words


def _plain(text: str) -> str:
    for letter, pair in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("Ä", "Ae"), ("Ö", "Oe"), ("Ü", "Ue")):
        text = text.replace(letter, pair)
    bare = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    return unicodedata.normalize("NFKC", bare).casefold()


def _singular(word: str) -> str:
    return word.removesuffix("s")
