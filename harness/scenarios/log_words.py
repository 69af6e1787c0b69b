# ruff: noqa: RUF001 - letters of other alphabets are meant
"""Words of PostgreSQL's own message catalogues (15) by which the lines of its log are known, in every language it has.

`lc_messages` translates them all: the severity before a message, what follows it, and the words before a statement.
"""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """One language; the texts are printf formats, as in the catalogue."""

    severities: tuple[str, ...]
    """LOG, ERROR, FATAL, PANIC, WARNING, NOTICE, INFO, DEBUG."""
    parts: tuple[str, ...]
    """DETAIL, HINT, QUERY, CONTEXT, STATEMENT, BACKTRACE."""
    statement: str
    timed: str
    timed_execute: str
    execute: str
    fetch: str
    parse: str
    bind: str
    parameters: str
    prepare: str


LANGUAGES: dict[str, Words] = {
    "en": Words(
        ("LOG", "ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "INFO", "DEBUG"),
        ("DETAIL", "HINT", "QUERY", "CONTEXT", "STATEMENT", "BACKTRACE"),
        "statement: %s",
        "duration: %s ms  statement: %s",
        "duration: %s ms  %s %s%s%s: %s",
        "execute",
        "execute fetch from",
        "duration: %s ms  parse %s: %s",
        "duration: %s ms  bind %s%s%s: %s",
        "parameters: %s",
        "prepare: %s",
    ),
    "de": Words(
        ("LOG", "FEHLER", "FATAL", "PANIK", "WARNUNG", "HINWEIS", "INFO", "DEBUG"),
        ("DETAIL", "TIPP", "ANFRAGE", "ZUSAMMENHANG", "ANWEISUNG", "BACKTRACE"),
        "Anweisung: %s",
        "Dauer: %s ms  Anweisung: %s",
        "Dauer: %s ms  %s %s%s%s: %s",
        "Ausführen",
        "Ausführen Fetch von",
        "Dauer: %s ms  Parsen %s: %s",
        "Dauer: %s ms  Binden %s%s%s: %s",
        "Parameter: %s",
        "Vorbereiten: %s",
    ),
    "es": Words(
        ("LOG", "ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "INFO", "DEBUG"),
        ("DETALLE", "HINT", "CONSULTA", "CONTEXTO", "SENTENCIA", "BACKTRACE"),
        "sentencia: %s",
        "duración: %s ms  sentencia: %s",
        "duración: %s ms  %s %s%s%s: %s",
        "ejecutar",
        "ejecutar fetch desde",
        "duración: %s ms  parse: %s: %s",
        "duración: %s ms  bind %s%s%s: %s",
        "parámetros: %s",
        "prepare: %s",
    ),
    "fr": Words(
        ("LOG", "ERREUR", "FATAL", "PANIC", "ATTENTION", "NOTICE", "INFO", "DEBUG"),
        ("DÉTAIL", "ASTUCE", "REQUÊTE", "CONTEXTE", "INSTRUCTION", "PILE D'APPEL"),
        "instruction : %s",
        "durée : %s ms, instruction : %s",
        "durée : %s ms  %s %s%s%s: %s",
        "exécute",
        "exécute fetch à partir de",
        "durée : %s ms, analyse %s : %s",
        "durée : %s ms, lien %s%s%s : %s",
        "paramètres : %s",
        "préparation : %s",
    ),
    "it": Words(
        ("LOG", "ERRORE", "FATALE", "PANICO", "ATTENZIONE", "NOTIFICA", "INFO", "DEBUG"),
        ("DETTAGLI", "SUGGERIMENTO", "QUERY", "CONTESTO", "ISTRUZIONE", "BACKTRACE"),
        "istruzione: %s",
        "durata: %s ms  istruzione: %s",
        "durata: %s ms  %s %s%s%s: %s",
        "esecuzione di",
        "esecuzione di fetch da",
        "durata: %s ms  analisi di %s: %s",
        "durata: %s ms  bind %s%s%s: %s",
        "parametri: %s",
        "preparazione: %s",
    ),
    "ja": Words(
        ("LOG", "ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "INFO", "DEBUG"),
        ("詳細", "ヒント", "問い合わせ", "文脈", "文", "バックトレース"),
        "文: %s",
        "期間: %s ミリ秒  文: %s",
        "期間: %s ミリ秒  %s %s%s%s: %s",
        "実行",
        "取り出し実行",
        "期間: %s ミリ秒  パース%s : %s",
        "期間: %s ミリ秒  バインド %s%s%s: %s",
        "パラメータ: %s",
        "準備: %s",
    ),
    "ka": Words(
        ("ჟურნალი", "შეცდომა", "ფატალური", "პანიკა", "გაფრთხილება", "გაფრთხილება", "ინფორმაცია", "გამართვა"),
        ("დეტალები", "მინიშნება", "მოთხოვნა", "კონტექსტი", "ოპერატორი", "სტეკი"),
        "ოპერატორი: %s",
        "ხანგრძლივობა: %s მწმ  გამოსახულება: %s",
        "ხანგრძლივობა: %s მწმs  %s %s%s%s: %s",
        "გაშვება",
        "execute fetch from",
        "ხანგრძლივობა: %s მწმ  %s-ის დამუშავება: %s",
        "ხანგრძლივობა: %s მწმ  მიბმა %s%s%s: %s",
        "პარამეტრები: %s",
        "მომზადება: %s",
    ),
    "ko": Words(
        ("로그", "오류", "치명적오류", "손상", "경고", "알림", "정보", "디버그"),
        ("상세정보", "힌트", "쿼리", "내용", "명령 구문", "역추적"),
        "명령 구문: %s",
        "실행시간: %s ms  명령 구문: %s",
        "수행시간: %s ms  %s %s%s%s: %s",
        "쿼리실행",
        "자료뽑기",
        "실행시간: %s ms  %s 구문분석: %s",
        "실행시간: %s ms  %s%s%s 접속: %s",
        "매개 변수: %s",
        "prepare: %s",
    ),
    "ru": Words(
        ("СООБЩЕНИЕ", "ОШИБКА", "ВАЖНО", "ПАНИКА", "ПРЕДУПРЕЖДЕНИЕ", "ЗАМЕЧАНИЕ", "ИНФОРМАЦИЯ", "ОТЛАДКА"),
        ("ПОДРОБНОСТИ", "ПОДСКАЗКА", "ЗАПРОС", "КОНТЕКСТ", "ОПЕРАТОР", "СТЕК"),
        "оператор: %s",
        "продолжительность: %s мс, оператор: %s",
        "продолжительность: %s мс  %s %s%s%s: %s",
        "выполнение",
        "выборка из",
        "продолжительность: %s мс, разбор %s: %s",
        "продолжительность: %s мс, сообщение Bind %s%s%s: %s",
        "параметры: %s",
        "подготовка: %s",
    ),
    "sv": Words(
        ("LOGG", "FEL", "FATALT", "PANIK", "VARNING", "NOTIS", "INFO", "DEBUG"),
        ("DETALJ", "TIPS", "FRÅGA", "KONTEXT", "SATS", "BACKTRACE"),
        "sats: %s",
        "varaktighet: %s ms  sats: %s",
        "varaktighet: %s ms  %s %s%s%s: %s",
        "kör",
        "kör hämtning från",
        "varaktighet: %s ms  parse %s: %s",
        "varaktighet: %s ms  bind %s%s%s: %s",
        "parametrar: %s",
        "prepare: %s",
    ),
    "uk": Words(
        ("ЗАПИСУВАННЯ", "ПОМИЛКА", "ФАТАЛЬНО", "ПАНІКА", "ПОПЕРЕДЖЕННЯ", "ПОВІДОМЛЕННЯ", "ІНФОРМАЦІЯ", "НАЛАГОДЖЕННЯ"),
        ("ВІДОМОСТІ", "УКАЗІВКА", "ЗАПИТ", "КОНТЕКСТ", "ІНСТРУКЦІЯ", "ВІДСТЕЖУВАТИ"),
        "оператор: %s",
        "тривалість: %s мс, оператор: %s",
        "тривалість: %s мс %s %s%s%s: %s",
        "виконувати",
        "виконати витягнення з",
        "тривалість: %s мс, аналізування %s: %s",
        "тривалість: %s мс, повідомлення bind %s%s%s: %s",
        "параметри: %s",
        "підготовка: %s",
    ),
    "zh_CN": Words(
        ("日志", "错误", "致命错误", "比致命错误还过分的错误", "警告", "注意", "信息", "调试"),
        ("详细信息", "提示", "查询", "上下文", "语句", "BACKTRACE"),
        "语句: %s",
        "执行时间: %s ms 语句: %s",
        "执行时间: %s ms %s%s%s%s: %s",
        "执行",
        "执行FETCH操作",
        "执行时间: %s ms  解析 %s: %s",
        "执行时间: %s ms 绑定%s%s%s: %s",
        "参数: %s",
        "准备: %s",
    ),
}
